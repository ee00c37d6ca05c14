package diffusers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// object is the JSON object of a configuration file. Keys are read one after
// the other; the first whose value does not fit sets err, and what is read
// after it means nothing.
type object struct {
	path   string
	fields map[string]json.RawMessage
	known  map[string]bool // keys that were read
	err    error
}

func readObject(path string) (*object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("diffusers: %w", err)
	}
	o := newObject(path)
	err = json.Unmarshal(notNumbers.ReplaceAll(text, []byte("${1}null")), &o.fields)
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other):
		return nil, fmt.Errorf("diffusers: %s: want a JSON object, not a JSON %s", path, other.Value)
	case err != nil:
		return nil, fmt.Errorf("diffusers: %s: want a JSON object: %w", path, err)
	case o.fields == nil:
		return nil, fmt.Errorf("diffusers: %s: want a JSON object, not null", path)
	}
	return o, nil
}

// notNumbers are values that Python writes and JSON does not know, such as the -Infinity of
// lambda_min_clipped. They are read as null. Within text no quote is without a backslash.
var notNumbers = regexp.MustCompile(`("\w+":\s*)(?:-?Infinity|NaN)\b`)

func newObject(path string) *object {
	return &object{path: path, fields: map[string]json.RawMessage{}, known: map[string]bool{}}
}

// fail records the first error: the value of key is not what is wanted.
func (o *object) fail(key, want string) {
	o.failf("%s is %s: want %s", key, show(o.fields[key]), want)
}

func (o *object) failf(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("diffusers: %s: %s", o.path, fmt.Sprintf(format, args...))
	}
}

// show is a value for an error message: on one line, and not too long.
func show(value json.RawMessage) string {
	const longest = 100
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		return "absent"
	}
	if text := []rune(b.String()); len(text) > longest {
		return string(text[:longest]) + "..."
	}
	return b.String()
}

// decode is strict about null, which encoding/json takes for anything.
func decode[T any](value json.RawMessage) (T, error) {
	var v *T
	if err := json.Unmarshal(value, &v); err != nil {
		return *new(T), err
	}
	if v == nil {
		return *new(T), errors.New("null")
	}
	return *v, nil
}

// read decodes the value of key, which is absent's if there is none.
func read[T any](o *object, key string, absent T, want string) T {
	o.known[key] = true
	value, ok := o.fields[key]
	if !ok {
		return absent
	}
	v, err := decode[T](value)
	if err != nil {
		o.fail(key, want)
	}
	return v
}

// whole is an integer, which Python may have written as 32.0.
type whole int

func (w *whole) UnmarshalJSON(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return errors.New("not a whole number")
	}
	*w = whole(f)
	return nil
}

func (o *object) whole(key string, absent int) int {
	return int(read(o, key, whole(absent), "a whole number"))
}

func (o *object) number(key string, absent float64) float64 {
	return read(o, key, absent, "a number")
}

func (o *object) flag(key string, absent bool) bool {
	return read(o, key, absent, "true or false")
}

func (o *object) text(key, absent string) string {
	return read(o, key, absent, "text")
}

// null reports whether key is there and null. Keys that may be null are asked
// before they are read.
func (o *object) null(key string) bool {
	_, err := decode[any](o.fields[key])
	null := o.has(key) && err != nil
	if null {
		o.known[key] = true
	}
	return null
}

func (o *object) has(key string) bool {
	_, ok := o.fields[key]
	return ok
}

// choose reads a key whose values stand for others.
func (o *object) choose(key, absent string, meaning map[string]string) string {
	value := o.text(key, absent)
	chosen, ok := meaning[value]
	if !ok {
		o.fail(key, quoted(slices.Sorted(maps.Keys(meaning))))
	}
	return chosen
}

// fixed is a key with a value that stands for how things are done here. Absent
// is as good: the library's default is among the values of each.
type fixed struct {
	key    string
	values []any // as encoding/json decodes them; nil is null
}

// require checks that keys have one of their values.
func (o *object) require(keys []fixed) {
	for _, f := range keys {
		o.known[f.key] = true
		value, ok := o.fields[f.key]
		if !ok {
			continue
		}
		var got any
		if err := json.Unmarshal(value, &got); err == nil &&
			slices.ContainsFunc(f.values, func(v any) bool { return reflect.DeepEqual(v, got) }) {
			continue
		}
		o.fail(f.key, quoted(f.values)+", nothing else is supported")
	}
}

// quoted lists values as JSON has them.
func quoted[T any](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			text = fmt.Append(nil, v)
		}
		words[i] = string(text)
	}
	return strings.Join(words, " or ")
}

// refuseOthers fails on a key that was not read and may matter. Those that
// begin with _ are the library's notes to itself, and null or false is how it
// writes that something is not there.
func (o *object) refuseOthers() {
	for _, key := range slices.Sorted(maps.Keys(o.fields)) {
		value := string(o.fields[key])
		if !o.known[key] && !strings.HasPrefix(key, "_") && value != "null" && value != "false" {
			o.failf("the key %q (%s) is not one that this program knows of %s: remove it if it changes nothing", key, show(o.fields[key]), modelClass)
		}
	}
}

// explain puts in front of an error of a configuration of this program, which
// begins with a key of its own, the file and the key that the value is from.
func (o *object) explain(err error, names map[string]string) error {
	if err == nil {
		return nil
	}
	setting, _, _ := strings.Cut(err.Error(), " ")
	if key, ok := names[setting]; ok {
		return fmt.Errorf("diffusers: %s: %s, read as %w", o.path, key, err)
	}
	return fmt.Errorf("diffusers: %s: %w", o.path, err)
}
