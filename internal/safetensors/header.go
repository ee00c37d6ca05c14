package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// header walks the tokens of the JSON text. encoding/json's Unmarshal will not
// do: it keeps the last of two equal keys and repairs broken text silently.
type header struct {
	dec *json.Decoder
}

// parseHeader returns the tensors in the order of the text and fills metadata.
func parseHeader(text []byte, metadata map[string]string) ([]entry, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the header is not valid UTF-8")
	}
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, fmt.Errorf("the header is not valid JSON: %w", err)
	}
	h := header{json.NewDecoder(bytes.NewReader(text))}
	h.dec.UseNumber()
	var entries []entry
	err := h.object("the header", func(key string) error {
		if key == metadataKey {
			return h.object(metadataKey, func(key string) (err error) {
				metadata[key], err = h.text(fmt.Sprintf("%s: the value of %q", metadataKey, key))
				return err
			})
		}
		e, err := h.entry(key)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func (h header) entry(name string) (entry, error) {
	e := entry{name: name}
	var offsets []int64
	seen := 0
	err := h.object("its description", func(key string) error {
		seen++
		switch key {
		case "dtype":
			text, err := h.text(key)
			e.dtype = DType(text)
			return err
		case "shape":
			dims, err := h.integers(key)
			for _, dim := range dims {
				if int64(int(dim)) != dim {
					return fmt.Errorf("shape: dimension %d is too large for this machine", dim)
				}
				e.shape = append(e.shape, int(dim))
			}
			return err
		case "data_offsets":
			var err error
			offsets, err = h.integers(key)
			return err
		}
		return fmt.Errorf("unknown key %q: want dtype, shape and data_offsets", key)
	})
	if err != nil {
		return e, err
	}
	if seen != 3 {
		return e, errors.New("want all of dtype, shape and data_offsets")
	}
	if len(offsets) != 2 || offsets[0] > offsets[1] {
		return e, fmt.Errorf("data_offsets %d: want [begin, end] with begin <= end", offsets)
	}
	e.begin, e.end = offsets[0], offsets[1]
	n, err := elements(e.dtype, e.shape)
	if err != nil {
		return e, err
	}
	if want := int64(n) * int64(e.dtype.Size()); e.end-e.begin != want {
		return e, fmt.Errorf("data_offsets %d span %d bytes, but dtype %s and shape %v need %d", offsets, e.end-e.begin, e.dtype, e.shape, want)
	}
	return e, nil
}

// object reads a JSON object, calling member for each key to read its value.
func (h header) object(what string, member func(key string) error) error {
	token, err := h.dec.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return fmt.Errorf("%s is %s, want an object", what, describe(token))
	}
	keys := map[string]bool{}
	for h.dec.More() {
		token, err := h.dec.Token()
		if err != nil {
			return err
		}
		key := token.(string) // JSON, which was checked, has no other keys
		if keys[key] {
			return fmt.Errorf("%s has the key %q twice", what, key)
		}
		keys[key] = true
		if err := member(key); err != nil {
			return err
		}
	}
	_, err = h.dec.Token()
	return err
}

func (h header) text(what string) (string, error) {
	token, err := h.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("%s is %s, want a string", what, describe(token))
	}
	return s, nil
}

// integers reads an array of integers that are not negative.
func (h header) integers(what string) ([]int64, error) {
	token, err := h.dec.Token()
	if err != nil {
		return nil, err
	}
	if token != json.Delim('[') {
		return nil, fmt.Errorf("%s is %s, want an array of integers", what, describe(token))
	}
	var values []int64
	for h.dec.More() {
		token, err := h.dec.Token()
		if err != nil {
			return nil, err
		}
		number, _ := token.(json.Number)
		v, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("%s holds %s, want integers from 0 to 2^63-1", what, describe(token))
		}
		values = append(values, v)
	}
	_, err = h.dec.Token()
	return values, err
}

func describe(token json.Token) string {
	switch v := token.(type) {
	case nil:
		return "null"
	case json.Delim:
		if v == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return strconv.Quote(v)
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(token)
}
