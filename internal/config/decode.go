package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setting is the value one source gives one key.
type setting struct {
	leaf   *leaf
	value  any // of the leaf's type
	origin string
}

// number is what YAML and --set accept as one: decimal, with _ between digits
// for the reader, no octal and no hexadecimal.
var number = regexp.MustCompile(`^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$`)

// readYAML reads a file of settings, in the order of its lines. The keys are
// checked here, on the nodes, because viper ignores their case, lets the second
// of two equal ones win and forgets their lines.
func readYAML(text []byte, source string) ([]setting, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: not valid YAML: %s", source, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want a single YAML document", source)
	}
	root := resolve(document.Content[0])
	if isNull(root) {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want keys and values, such as \"seed: 1\"", source, root.Line)
	}
	return readSection(root, "", source)
}

func readSection(node *yaml.Node, section, source string) ([]setting, error) {
	var all []setting
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		keyNode, valueNode := resolve(node.Content[i]), resolve(node.Content[i+1])
		origin := fmt.Sprintf("%s:%d", source, node.Content[i].Line)
		key := show(keyNode)
		if keyNode.Kind == yaml.ScalarNode && keyNode.Value != "" {
			key = keyNode.Value
		}
		if section != "" {
			key = section + "." + key
		}
		if first, twice := lines[key]; twice {
			return nil, from(fmt.Errorf("%s: set twice, first on line %d", key, first), origin)
		}
		lines[key] = node.Content[i].Line

		if _, isSection := children[key]; isSection && section == "" && key != "" {
			if isNull(valueNode) {
				continue // all its lines are commented out
			}
			if valueNode.Kind != yaml.MappingNode {
				return nil, from(fmt.Errorf("%s %s: want a section with keys %s", key, show(valueNode), strings.Join(children[key], ", ")), origin)
			}
			settings, err := readSection(valueNode, key, source)
			if err != nil {
				return nil, err
			}
			all = append(all, settings...)
			continue
		}
		l, known := leafOf[key]
		if known && l.section != section {
			return nil, from(fmt.Errorf("%s: want a key inside its section, as in \"%s: {%s: %s}\"", key, l.section, l.name, show(valueNode)), origin)
		}
		if !known {
			return nil, from(unknownKey(key, section, show(valueNode)), origin)
		}
		value, err := decodeNode(valueNode, l.typ)
		if err != nil {
			return nil, from(fmt.Errorf("%s %s: %w", key, show(valueNode), err), origin)
		}
		all = append(all, setting{l, value, origin})
	}
	return all, nil
}

// unknownKey is the error for a key that does not exist. value is shown as it
// is.
func unknownKey(key, section, value string) error {
	return fmt.Errorf("%s %s: unknown key, want one of %s%s", key, value, strings.Join(children[section], ", "), didYouMean(nearestKey(key)))
}

// parseSetting reads the two sides of key=value.
func parseSetting(key, value string) (*leaf, any, error) {
	l, known := leafOf[key]
	if !known {
		section, _, _ := strings.Cut(key, ".")
		if names, isSection := children[section]; isSection && key == section && key != "" {
			return nil, nil, fmt.Errorf("%s %s: want one key of the section, such as %s.%s", key, showText(value), key, names[0])
		} else if !isSection {
			section = ""
		}
		return nil, nil, unknownKey(key, section, showText(value))
	}
	v, err := decodeText(value, l.typ)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", key, showText(value), err)
	}
	return l, v, nil
}

// decodeNode turns a YAML value into a Go value of the given type. A quoted
// number is text, a whole 5e3 is an integer, and there are no other conversions.
func decodeNode(node *yaml.Node, typ reflect.Type) (any, error) {
	if typ.Kind() == reflect.Slice {
		if node.Kind != yaml.SequenceNode {
			return nil, want(typ)
		}
		list := reflect.MakeSlice(typ, 0, len(node.Content))
		for _, item := range node.Content {
			value, err := decodeNode(resolve(item), typ.Elem())
			if err != nil {
				return nil, want(typ)
			}
			list = reflect.Append(list, reflect.ValueOf(value))
		}
		return list.Interface(), nil
	}
	if node.Kind != yaml.ScalarNode {
		return nil, want(typ)
	}
	switch tag := node.ShortTag(); {
	case typ.Kind() == reflect.String && tag == "!!str",
		typ.Kind() == reflect.Bool && tag == "!!bool",
		typ.Kind() != reflect.String && (tag == "!!int" || tag == "!!float"):
		return decodeText(node.Value, typ)
	}
	return nil, want(typ)
}

// decodeText is decodeNode for the environment and --set, where text needs no
// quotes and lists no brackets.
func decodeText(text string, typ reflect.Type) (any, error) {
	if typ.Kind() == reflect.String {
		return text, nil
	}
	text = strings.TrimSpace(text)
	if typ.Kind() == reflect.Slice {
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			text = strings.TrimSpace(text[1 : len(text)-1])
		}
		list := reflect.MakeSlice(typ, 0, 4)
		if text == "" {
			return list.Interface(), nil
		}
		for item := range strings.SplitSeq(text, ",") {
			value, err := decodeText(item, typ.Elem())
			if err != nil {
				return nil, want(typ)
			}
			list = reflect.Append(list, reflect.ValueOf(value))
		}
		return list.Interface(), nil
	}
	if typ.Kind() == reflect.Bool {
		switch strings.ToLower(text) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, want(typ)
	}
	if !number.MatchString(text) {
		return nil, want(typ)
	}
	digits := strings.ReplaceAll(text, "_", "")
	real, err := strconv.ParseFloat(digits, 64)
	switch typ.Kind() {
	case reflect.Float64:
		if err != nil {
			return nil, want(typ)
		}
		return real, nil
	case reflect.Int:
		if n, err := strconv.Atoi(digits); err == nil {
			return n, nil
		}
		// 5e3: whole, and small enough for a float64 to be exact.
		if real == math.Trunc(real) && math.Abs(real) <= 1<<53 && int64(int(real)) == int64(real) {
			return int(real), nil
		}
	case reflect.Uint64:
		if n, err := strconv.ParseUint(strings.TrimPrefix(digits, "+"), 10, 64); err == nil {
			return n, nil
		}
		if real == math.Trunc(real) && real >= 0 && real <= 1<<53 {
			return uint64(real), nil
		}
	}
	return nil, want(typ)
}

func want(typ reflect.Type) error {
	switch typ {
	case reflect.TypeFor[string]():
		return errors.New("want text, in quotes if it looks like something else")
	case reflect.TypeFor[bool]():
		return errors.New("want true or false")
	case reflect.TypeFor[int]():
		return errors.New("want a whole number")
	case reflect.TypeFor[uint64]():
		return errors.New("want a whole number from 0 to 18446744073709551615")
	case reflect.TypeFor[float64]():
		return errors.New("want a number")
	case reflect.TypeFor[[]int]():
		return errors.New("want a list of whole numbers, such as [16, 8]")
	case reflect.TypeFor[[]float64]():
		return errors.New("want a list of numbers, such as [1, 2, 2]")
	}
	return fmt.Errorf("values of type %s cannot be set", typ)
}

// resolve follows an alias to its anchor. Aliases cannot run in circles here:
// sections hold values, values hold at most a list, and lists hold scalars.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// show writes a value for an error message, on one line.
func show(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "{...}"
	case yaml.SequenceNode:
		words := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item = resolve(item); item.Kind != yaml.ScalarNode {
				return "[...]"
			}
			words = append(words, show(item))
		}
		return shorten("[" + strings.Join(words, ", ") + "]")
	}
	if node.ShortTag() == "!!str" {
		return shorten(strconv.Quote(node.Value))
	}
	if isNull(node) {
		return "null"
	}
	return shorten(node.Value)
}

// showText is show for a value that was not written in YAML.
func showText(text string) string {
	if number.MatchString(text) || text == "true" || text == "false" {
		return shorten(text)
	}
	return shorten(strconv.Quote(text))
}

func shorten(text string) string {
	const most = 80
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return text
}

// from ends an error with the place its value came from.
func from(err error, origin string) error {
	if err == nil || origin == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, origin)
}
