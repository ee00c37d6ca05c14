package config

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Marshal writes every key as YAML, always in the same order. Parse reads it
// back to an equal configuration.
func Marshal(c *Config) []byte {
	var text strings.Builder
	section := ""
	for _, l := range leaves {
		if l.section != section {
			section = l.section
			text.WriteString(section + ":\n")
		}
		text.WriteString(line(&l, c) + "\n")
	}
	return []byte(text.String())
}

// Annotated writes the configuration as YAML, every key with its meaning and
// its origin. Loading that file gives the same configuration.
func (r *Resolved) Annotated(w io.Writer) error {
	const widest = 34 // columns before the comments; longer lines push theirs out
	width := 0
	for _, l := range leaves {
		if n := utf8.RuneCountInString(line(&l, &r.Config)); n <= widest {
			width = max(width, n)
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# %s\n", oneLine(r.Source))
	section := ""
	for _, l := range leaves {
		if l.section != section {
			section = l.section
			fmt.Fprintf(&text, "\n%s:\n", section)
		}
		setting := line(&l, &r.Config)
		pad := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(setting)))
		fmt.Fprintf(&text, "%s%s  # %s [%s]\n", setting, pad, l.description(), oneLine(r.Origins[l.key]))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// line is "key: value", indented below its section.
func line(l *leaf, c *Config) string {
	text := l.name + ": " + format(reflect.ValueOf(l.get(c)))
	if l.section != "" {
		return "  " + text
	}
	return text
}

// description is the leaf's doc with its choices, unless that names them.
func (l *leaf) description() string {
	names := l.choices()
	for _, name := range names {
		if !strings.Contains(l.doc, name) {
			return l.doc + ": " + strings.Join(names, ", ")
		}
	}
	return l.doc
}

// plain is text that YAML reads as itself without quotes.
var plain = regexp.MustCompile(`^[A-Za-z./][A-Za-z0-9_./-]*$`)

// format writes a value so that YAML reads back the same one, of the same type.
func format(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		text := v.String()
		switch strings.ToLower(text) {
		case "true", "false", "yes", "no", "on", "off", "y", "n", "null", ".nan", ".inf":
			return strconv.Quote(text)
		}
		if plain.MatchString(text) && !number.MatchString(text) {
			return text
		}
		// Go's escapes are a subset of those of YAML's double quotes.
		return strconv.Quote(text)
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = format(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// oneLine keeps a path with odd characters from ending a comment.
func oneLine(text string) string {
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}
