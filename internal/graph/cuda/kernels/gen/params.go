package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// unit is what the sources of a folder declare.
type unit struct {
	structs   map[string]*structure // by name
	constants map[string]int        // constexpr int NAME = number;
	kernels   []kernel
}

// kernel is an entry point and the one struct it takes.
type kernel struct {
	source
	name   string
	params string
}

// structure is a struct that a kernel takes, a part of one, or what a pointer in one
// leads to. Its fields are read when it turns out to be used.
type structure struct {
	name   string
	place  string // file:line
	body   string
	line   int // of the body
	file   string
	over   bool // has an alignment of its own
	state  state
	err    error // why its fields cannot be read
	fields []field
	size   int
	align  int
}

// state is how far the fields of a structure are known.
type state int

const (
	unread state = iota
	reading
	read
	unreadable
)

type field struct {
	name   string
	kind   kind
	counts []int // extents of an array
	offset int
	target *structure // that a pointer leads to, or nil
}

// kind is the type of one element of a field.
type kind struct {
	name  string // in Go
	size  int
	align int
	inner *structure // or nil
}

// elements are structs of device.h that stand for numbers in memory: what points to
// one points to an array, and nothing in Go makes one by name.
var elements = []string{"bf16", "Vec2", "Vec4"}

var scalars = map[string]kind{
	"int":   {name: "int32", size: 4, align: 4},
	"u8":    {name: "uint8", size: 1, align: 1},
	"u16":   {name: "uint16", size: 2, align: 2},
	"u32":   {name: "uint32", size: 4, align: 4},
	"float": {name: "float32", size: 4, align: 4},
	"i64":   {name: "int64", size: 8, align: 8},
	"u64":   {name: "uint64", size: 8, align: 8},
}

var pointer = kind{name: "Ptr", size: 8, align: 8}

// parseFiles reads the declarations of headers and sources in a folder. A struct has
// one meaning in all of them, since there is one Go package for all.
func parseFiles(dir string, headers []string, sources []source) (*unit, error) {
	u := &unit{structs: map[string]*structure{}, constants: map[string]int{}}
	parse := func(file string) (text string, err error) {
		bytes, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
		if err != nil {
			return "", err
		}
		text = blankComments(string(bytes))
		return text, u.parse(file, text)
	}
	for _, file := range headers {
		if _, err := parse(file); err != nil {
			return nil, err
		}
	}
	for _, s := range sources {
		text, err := parse(s.file)
		if err == nil {
			err = u.parseKernels(s, text)
		}
		if err != nil {
			return nil, err
		}
	}
	var wrong []error
	for _, k := range u.kernels {
		s := u.structs[k.params]
		if s == nil {
			wrong = append(wrong, fmt.Errorf("%s: kernel %s takes %s, which no file here defines", k.file, k.name, k.params))
			continue
		}
		if err := u.read(s); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, s := range u.structs {
		if strings.HasSuffix(s.name, "Params") {
			if err := u.read(s); err != nil {
				wrong = append(wrong, err)
			}
		}
	}
	return u, joinDistinct(wrong)
}

// joinDistinct joins errors, each text once, in a fixed order.
func joinDistinct(errs []error) error {
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	errs = slices.CompactFunc(errs, func(a, b error) bool { return a.Error() == b.Error() })
	return errors.Join(errs...)
}

var (
	structStart  = regexp.MustCompile(`\bstruct\s+((?:alignas\s*\([^)]*\)\s*)?)(\w+)\s*\{`)
	constantLine = regexp.MustCompile(`\bconstexpr\s+(?:int|u32|i64)\s+(\w+)\s*=\s*(\d+)\s*;`)
	kernelLine   = regexp.MustCompile(`\bKERNEL\b([^;{}]*)\{`)
	kernelHead   = regexp.MustCompile(`^\s*(?:BOUNDS\s*\([^()]*\)\s*)?(\w+)\s*\(\s*(?:const\s+)?(\w+)\s+\w+\s*\)\s*$`)
)

// parse finds the structs and constants of a file.
func (u *unit) parse(file, text string) error {
	for _, m := range constantLine.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return fmt.Errorf("%s: %s: %w", file, m[1], err)
		}
		u.constants[m[1]] = n
	}
	for _, m := range structStart.FindAllStringSubmatchIndex(text, -1) {
		aligned, name := text[m[2]:m[3]] != "", text[m[4]:m[5]]
		body, err := braced(text[m[1]:])
		if err != nil {
			return fmt.Errorf("%s: struct %s: %w", place(file, text, m[0]), name, err)
		}
		s := &structure{
			name: name, place: place(file, text, m[0]), body: body,
			file: file, line: lineOf(text, m[1]), over: aligned,
		}
		if old := u.structs[name]; old != nil && squeeze(old.body) != squeeze(body) {
			if strings.HasSuffix(name, "Params") {
				return fmt.Errorf("%s: struct %s is another one at %s", s.place, name, old.place)
			}
			continue
		}
		u.structs[name] = s
	}
	return nil
}

// parseKernels finds the kernels of a source.
func (u *unit) parseKernels(s source, text string) error {
	for _, m := range kernelLine.FindAllStringSubmatchIndex(text, -1) {
		head := kernelHead.FindStringSubmatch(text[m[2]:m[3]])
		if head == nil {
			return fmt.Errorf("%s: want `KERNEL BOUNDS(threads, blocks) name(NameParams p)`, not %q",
				place(s.file, text, m[0]), "KERNEL "+squeeze(text[m[2]:m[3]]))
		}
		k := kernel{source: s, name: head[1], params: head[2]}
		if !strings.HasSuffix(k.params, "Params") {
			return fmt.Errorf("%s: kernel %s takes %s: the name must end in Params", place(s.file, text, m[0]), k.name, k.params)
		}
		for _, other := range u.kernels {
			if other.name == k.name {
				return fmt.Errorf("%s: kernel %s is also in %s", place(s.file, text, m[0]), k.name, other.file)
			}
		}
		u.kernels = append(u.kernels, k)
	}
	return nil
}

// blankComments replaces comments and preprocessor lines by blanks, so that
// positions stay what they are.
func blankComments(text string) string {
	out := []byte(text)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	end := func(from int, mark string) int {
		if n := strings.Index(text[from:], mark); n >= 0 {
			return from + n + len(mark)
		}
		return len(text)
	}
	lineStart := true
	for i := 0; i < len(text); {
		rest := text[i:]
		switch {
		case strings.HasPrefix(rest, "//"):
			n := end(i, "\n")
			blank(i, n)
			i, lineStart = n, true
			continue
		case strings.HasPrefix(rest, "/*"):
			n := end(i+2, "*/")
			blank(i, n)
			i = n
			continue
		case rest[0] == '"':
			i = skipString(text, i)
			continue
		case rest[0] == '#' && lineStart:
			n := end(i, "\n")
			for n >= 2 && strings.HasSuffix(strings.TrimRight(text[:n-1], "\r"), "\\") && n < len(text) {
				n = end(n, "\n")
			}
			blank(i, n)
			i = n
			continue
		case rest[0] == '\n':
			lineStart = true
		case rest[0] != ' ' && rest[0] != '\t':
			lineStart = false
		}
		i++
	}
	return string(out)
}

func skipString(text string, i int) int {
	for i++; i < len(text) && text[i] != '"' && text[i] != '\n'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return min(i+1, len(text))
}

// braced is what comes before the brace that closes the one before text.
func braced(text string) (string, error) {
	depth := 1
	for i, c := range text {
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return text[:i], nil
			}
		}
	}
	return "", errors.New("no closing brace")
}

func lineOf(text string, at int) int { return 1 + strings.Count(text[:at], "\n") }

func place(file, text string, at int) string { return fmt.Sprintf("%s:%d", file, lineOf(text, at)) }

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

// read lays out the fields of a struct as C++ does, once.
func (u *unit) read(s *structure) error {
	switch s.state {
	case unread:
		s.state = reading
		if s.err = u.readFields(s); s.err != nil {
			s.state = unreadable
			break
		}
		s.state = read
		for _, f := range s.fields {
			if f.target != nil {
				if err := u.read(f.target); err != nil {
					return err
				}
			}
		}
	case reading:
		return fmt.Errorf("%s: struct %s contains itself", s.place, s.name)
	}
	return s.err
}

func (u *unit) readFields(s *structure) error {
	if s.over {
		return fmt.Errorf("%s: struct %s: a Go struct cannot have the alignment of alignas", s.place, s.name)
	}
	line := s.line
	for _, statement := range statements(s.body) {
		at := fmt.Sprintf("%s:%d", s.file, line+leadingLines(statement))
		line += strings.Count(statement, "\n")
		if squeeze(statement) == "" {
			continue
		}
		fields, err := u.fields(squeeze(statement))
		if err != nil {
			return fmt.Errorf("%s: struct %s: %w", at, s.name, err)
		}
		s.fields = append(s.fields, fields...)
	}
	return s.layOut()
}

// statements are the declarations in the body of a struct, without the member
// functions, which take no space.
func statements(body string) []string {
	var list []string
	start := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case ';':
			list = append(list, body[start:i])
			start = i + 1
		case '{':
			inner, err := braced(body[i+1:])
			if err != nil {
				continue
			}
			i += len(inner) + 1
			if strings.Contains(body[start:i], ")") {
				list = append(list, strings.Repeat("\n", strings.Count(body[start:i+1], "\n")))
				start = i + 1
			}
		}
	}
	return append(list, body[start:])
}

func leadingLines(statement string) int {
	return strings.Count(statement[:len(statement)-len(strings.TrimLeft(statement, " \t\r\n"))], "\n")
}

var (
	pointerField = regexp.MustCompile(`^(?:const )?(?:struct )?(\w+)(?: const)? ?\*(?: ?const)? ?([\w\[\] ,*]+)$`)
	valueField   = regexp.MustCompile(`^(?:struct )?(\w+) ([\w\[\] ,]+)$`)
	declarator   = regexp.MustCompile(`^(\*?) ?(\w+) ?((?:\[ ?\w+ ?\] ?)*)$`)
	extent       = regexp.MustCompile(`\w+`)
)

// fields are those of one declaration, such as `const void* x, * y` or `int n[2], m`.
func (u *unit) fields(declaration string) ([]field, error) {
	var k kind
	var names string
	var target *structure
	isPointer := false
	if m := pointerField.FindStringSubmatch(declaration); m != nil {
		k, names, isPointer = pointer, m[2], true
		if !slices.Contains(elements, m[1]) {
			target = u.structs[m[1]]
		}
	} else if m := valueField.FindStringSubmatch(declaration); m != nil {
		var err error
		if k, err = u.kind(m[1]); err != nil {
			return nil, err
		}
		names = m[2]
	} else {
		return nil, fmt.Errorf("cannot read %q: want `type name;` of %s", declaration, knownTypes)
	}
	var list []field
	for i, text := range strings.Split(names, ",") {
		m := declarator.FindStringSubmatch(strings.TrimSpace(text))
		if m == nil || isPointer && i > 0 && m[1] == "" || (!isPointer || i == 0) && m[1] != "" {
			return nil, fmt.Errorf("cannot read %q: one field a declaration, please", declaration)
		}
		f := field{name: m[2], kind: k, target: target}
		for _, text := range extent.FindAllString(m[3], -1) {
			n, err := u.number(text)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", f.name, err)
			}
			f.counts = append(f.counts, n)
		}
		list = append(list, f)
	}
	return list, nil
}

const knownTypes = "a pointer, int, u8, u16, u32, i64, u64, float, a struct of these, or a fixed array of them"

func (u *unit) kind(name string) (kind, error) {
	if k, ok := scalars[name]; ok {
		return k, nil
	}
	s := u.structs[name]
	if s == nil {
		return kind{}, fmt.Errorf("type %s is unknown: want %s", name, knownTypes)
	}
	if err := u.read(s); err != nil {
		return kind{}, err
	}
	return kind{name: s.name, size: s.size, align: s.align, inner: s}, nil
}

func (u *unit) number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		known := false
		if n, known = u.constants[text]; !known {
			return 0, fmt.Errorf("extent %s is neither a number nor a `constexpr int %s = number;`", text, text)
		}
	}
	if n < 1 {
		return 0, fmt.Errorf("extent %d is not positive", n)
	}
	return n, nil
}

func (f field) size() int {
	n := f.kind.size
	for _, c := range f.counts {
		n *= c
	}
	return n
}

func (s *structure) layOut() error {
	names := map[string]string{}
	s.align = 1
	for i := range s.fields {
		f := &s.fields[i]
		name := pascal(f.name)
		if other, taken := names[name]; taken {
			return fmt.Errorf("%s: struct %s: fields %s and %s are both %s in Go", s.place, s.name, other, f.name, name)
		}
		names[name] = f.name
		f.offset = roundUp(s.size, f.kind.align)
		s.size = f.offset + f.size()
		s.align = max(s.align, f.kind.align)
	}
	if s.size == 0 {
		return fmt.Errorf("%s: struct %s has no fields", s.place, s.name)
	}
	s.size = roundUp(s.size, s.align)
	return nil
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// pascal makes x_bf16 XBf16.
func pascal(name string) string {
	var out strings.Builder
	for _, word := range strings.Split(name, "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}

// used lists the structs that got a layout, by name.
func (u *unit) used() []*structure {
	var list []*structure
	for _, s := range u.structs {
		if s.state == read {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *structure) int { return strings.Compare(a.name, b.name) })
	return list
}

// usedBy lists the structs that kernels of one module take, with their parts and
// what their pointers lead to.
func (u *unit) usedBy(module string) []*structure {
	seen := map[*structure]bool{}
	var visit func(*structure)
	visit = func(s *structure) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		for _, f := range s.fields {
			visit(f.kind.inner)
			visit(f.target)
		}
	}
	for _, k := range u.kernels {
		if k.module == module {
			visit(u.structs[k.params])
		}
	}
	var list []*structure
	for _, s := range u.used() {
		if seen[s] {
			list = append(list, s)
		}
	}
	return list
}

// goSource writes params.go.
func (u *unit) goSource() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "// Code generated from the CUDA sources by gen; DO NOT EDIT.")
	fmt.Fprintln(&out, "\npackage kernels")
	if len(u.kernels) > 0 {
		fmt.Fprintln(&out, "\nimport \"reflect\"")
	}
	for _, s := range u.used() {
		s.writeGo(&out)
	}
	slices.SortFunc(u.kernels, func(a, b kernel) int { return strings.Compare(a.name, b.name) })
	fmt.Fprintln(&out, "\n// table lists every kernel by name.")
	fmt.Fprintln(&out, "var table = []Kernel{")
	for _, k := range u.kernels {
		fmt.Fprintf(&out, "{Name: %q, Set: %q, Module: %q, Params: reflect.TypeFor[%s]()},\n", k.name, k.set, k.module, k.params)
	}
	fmt.Fprintln(&out, "}")
	return format.Source(out.Bytes())
}

func (s *structure) writeGo(out *bytes.Buffer) {
	fmt.Fprintf(out, "\n// %s is the struct in %s: %d bytes.\ntype %s struct {\n", s.name, s.file, s.size, s.name)
	at := 0
	pad := func(to int) {
		if to > at {
			fmt.Fprintf(out, "_ [%d]byte\n", to-at)
		}
	}
	for _, f := range s.fields {
		pad(f.offset)
		array := ""
		for _, n := range f.counts {
			array += fmt.Sprintf("[%d]", n)
		}
		fmt.Fprintf(out, "%s %s%s\n", pascal(f.name), array, f.kind.name)
		at = f.offset + f.size()
	}
	pad(s.size)
	fmt.Fprintln(out, "}")
}
