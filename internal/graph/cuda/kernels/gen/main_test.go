package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder makes a folder of files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func parseFolder(t *testing.T, files map[string]string) (*unit, error) {
	t.Helper()
	dir := folder(t, files)
	headers, sources, err := findFiles(dir)
	if err != nil {
		return nil, err
	}
	return parseFiles(dir, headers, sources)
}

const header = `
constexpr int parts_at_most = 3;
struct Divisor { u32 divisor; u32 shift; u32 multiplier; };  // 12 bytes
struct Unused { double x; };
`

const mixSource = `
#define KERNEL(x) \
  struct WrongParams { short x; };
// struct CommentedParams { short x; };
/* KERNEL commented(short p) {} */
struct MixParams {
  const void* x_bf16;  // a comment; with { and "
  int n;
  Divisor by[parts_at_most];
  float *y, *z;
  float table[2][3];
  int tail;
  DEV int twice() const { return 2 * n; }
  u64 big;
  i64 signed_big; int last;
};
template <int N> DEV void body(const MixParams& p) { p.y[0] = N; }
KERNEL BOUNDS(256, 1) mix_one(MixParams p) { body<1>(p); }
KERNEL BOUNDS(warps * 32, 2)
    mix_two(const MixParams p) {
  body<2>(p);
}
`

func TestGoTwin(t *testing.T) {
	u, err := parseFolder(t, map[string]string{"a.h": header, "mix.cu": mixSource})
	if err != nil {
		t.Fatal(err)
	}
	text, err := u.goSource()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		"type Divisor struct { Divisor uint32 Shift uint32 Multiplier uint32 }",
		// 8 + 4 + 36 = 48, then pointers; 24 bytes of table and 4 of tail make 92, so 4 of padding.
		"type MixParams struct { XBf16 Ptr N int32 By [3]Divisor Y Ptr Z Ptr Table [2][3]float32 Tail int32 _ [4]byte Big uint64 SignedBig int64 Last int32 _ [4]byte }",
		`{Name: "mix_one", Set: "sm_80", Module: "mix", Params: reflect.TypeFor[MixParams]()}, {Name: "mix_two", Set: "sm_80", Module: "mix",`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s\nin %s", want, got)
		}
	}
	if strings.Contains(got, "Unused") {
		t.Error("a struct that no kernel takes has a twin")
	}
	if s := u.structs["MixParams"]; s.size != 120 || s.align != 8 {
		t.Errorf("size %d aligned to %d, want 120 and 8", s.size, s.align)
	}
}

func TestSourcesThatMakeNoSense(t *testing.T) {
	kernel := "\nKERNEL BOUNDS(32, 1) k(XParams p) {}"
	for _, c := range []struct{ name, source, want string }{
		{"type", "struct XParams {\n  int n;\n  short y;\n};" + kernel, "a.cu:3: struct XParams: type short is unknown: want a pointer, int,"},
		{"inner type", "struct In { bool b; };\nstruct XParams { In in; };" + kernel, "a.cu:1: struct In: type bool is unknown"},
		{"itself", "struct XParams { XParams x; };" + kernel, "contains itself"},
		{"extent", "struct XParams { int n[N]; };" + kernel, "extent N is neither"},
		{"no extent", "struct XParams { int n[0]; };" + kernel, "extent 0 is not positive"},
		{"initialiser", "struct XParams { int n = 1; };" + kernel, "cannot read \"int n = 1\""},
		{"mixed", "struct XParams { int* n, m; };" + kernel, "one field a declaration"},
		{"bits", "struct XParams { int n : 3; };" + kernel, "cannot read"},
		{"empty", "struct XParams { };" + kernel, "has no fields"},
		{"names", "struct XParams { int a_b; int aB; };" + kernel, "are both AB in Go"},
		{"undefined", kernel, "kernel k takes XParams, which no file here defines"},
		{"two parameters", "struct XParams { int n; };\nKERNEL k(XParams p, int n) {}", "a.cu:2: want `KERNEL"},
		{"no struct", "KERNEL BOUNDS(1, 1) k(Other p) {}", "the name must end in Params"},
		{"twice", "struct XParams { int n; };" + kernel + kernel, "kernel k is also in a.cu"},
		{"unclosed", "struct XParams { int n;", "no closing brace"},
		{"alignment", "struct alignas(64) XParams { int n; };" + kernel, "alignas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseFolder(t, map[string]string{"a.cu": c.source}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	_, err := parseFolder(t, map[string]string{
		"a.cu": "struct XParams { int n; };" + kernel,
		"b.cu": "struct XParams { float n; };",
	})
	if err == nil || !strings.Contains(err.Error(), "b.cu:1: struct XParams is another one at a.cu:1") {
		t.Errorf("two structs of one name: %v", err)
	}
	_, err = parseFolder(t, map[string]string{"a.cu": "struct XParams { int n; };", "sm_90a/a.cu": "struct YParams { int n; };"})
	if err == nil || !strings.Contains(err.Error(), "a.cu and sm_90a/a.cu are both module a") {
		t.Errorf("two modules of one name: %v", err)
	}
}

// What a pointer leads to has a twin too, if it is a struct, and so has what that holds
// and leads to. Kernels know their set by the folder of their source.
func TestTablesInMemory(t *testing.T) {
	files := map[string]string{
		"map.h":        "struct Map { u64 words[2]; };\nstruct bf16 { u16 bits; };\nstruct alignas(16) Vec4 { u32 x; };",
		"sm_90a/box.h": "struct Box { u8 map, last; u16 rows; };\nstruct Next { Next* next; const Table* table; };",
		"sm_90a/wide.cu": `struct Table { Map maps[2]; Box boxes[3]; Next* next; int n; };
			struct WideParams { const Table* table; const bf16* x; Vec4* y; float* z; };
			KERNEL BOUNDS(1, 1) wide(WideParams p) {}`,
	}
	u, err := parseFolder(t, files)
	if err != nil {
		t.Fatal(err)
	}
	text, err := u.goSource()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		"type Map struct { Words [2]uint64 }",
		"type Box struct { Map uint8 Last uint8 Rows uint16 }",
		"type Next struct { Next Ptr Table Ptr }",
		// 32 + 12 = 44, then a pointer at 48.
		"type Table struct { Maps [2]Map Boxes [3]Box _ [4]byte Next Ptr N int32 _ [4]byte }",
		"type WideParams struct { Table Ptr X Ptr Y Ptr Z Ptr }",
		`{Name: "wide", Set: "sm_90a", Module: "wide", Params: reflect.TypeFor[WideParams]()}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s\nin %s", want, got)
		}
	}
	for _, name := range []string{"type bf16", "type Vec4"} {
		if strings.Contains(got, name) {
			t.Errorf("%s has a twin", name)
		}
	}
	assertions := string(u.layoutAssertions(u.kernels[0].source))
	for _, want := range []string{"#include \"sm_90a/wide.cu\"", "sizeof(Table) == 64", "sizeof(Next) == 16", "offsetof(Box, rows) == 2"} {
		if !strings.Contains(assertions, want) {
			t.Errorf("want %s\nin %s", want, assertions)
		}
	}
	files["sm_90a/box.h"] = "struct Box { u8 map, last; short rows; };\nstruct Next { short s; };"
	if _, err := parseFolder(t, files); err == nil || !strings.Contains(err.Error(), "sm_90a/box.h:1: struct Box: type short is unknown") {
		t.Errorf("error %v", err)
	}
	files["sm_90a/box.h"] = "struct Box { u8 map, last; u16 rows; };\nstruct Next { short s; };"
	if _, err := parseFolder(t, files); err == nil || !strings.Contains(err.Error(), "sm_90a/box.h:2: struct Next: type short is unknown") {
		t.Errorf("error %v", err)
	}
}

// compiler stands in for clang: it prints what lies beside the source, as a
// compiler's output that depends on nothing but its name, and fails where there is
// a file of messages.
const compiler = `#!/bin/sh
for a; do case $a in *.cu) name=${a%.cu};; -fsyntax-only) exit 0;; esac; done
for a; do case $a in --cuda-gpu-arch=*) echo "${a#*=}" >> architectures;; esac; done
if [ -e $name.messages ]; then cat $name.messages >&2; exit 1; fi
cat $name.compiled
`

const compiled = `//
// Generated by a compiler of some version
//
.version 8.0

	// .globl	k
.visible .entry k(
	.param .align 4 .b8 k_param_0[4]
)
{
	ret;   // the end
}
`

func TestRun(t *testing.T) {
	source := "struct XParams { int n; };\nKERNEL BOUNDS(32, 1) k(XParams p) {}\n"
	dir := folder(t, map[string]string{"a.cu": source, "a.compiled": compiled, "compiler": compiler})
	cc := filepath.Join(dir, "compiler")
	old := filepath.Join(dir, "ptx", "sm_80", "old.ptx")
	made := filepath.Join(dir, "ptx", "sm_80", "a.ptx")
	if err := os.MkdirAll(filepath.Dir(old), 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(check bool, want ...string) {
		t.Helper()
		err := run(dir, cc, check)
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("error %v, want %q", err, w)
			}
		}
	}
	works := func(check bool) {
		t.Helper()
		if err := run(dir, cc, check); err != nil {
			t.Error(err)
		}
	}

	write(old, "")
	fails(true, "params.go is missing", "ptx/sm_80/a.ptx is missing", "ptx/sm_80/old.ptx has no source", "make kernels")
	works(false)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("PTX without a source: %v", err)
	}
	works(true)
	text, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	want := "// Code generated from a.cu by gen; DO NOT EDIT.\n.version 8.0\n.visible .entry k(\n\t.param .align 4 .b8 k_param_0[4]\n)\n{\n\tret;\n}\n"
	if string(text) != want {
		t.Errorf("PTX is %q, want %q", text, want)
	}
	write(made, want+"\n")
	fails(true, "ptx/sm_80/a.ptx differs")
	works(false)

	// One source that does not compile keeps its PTX, and the others are written.
	write(filepath.Join(dir, "b.cu"), strings.ReplaceAll(source, "k(", "b("))
	write(filepath.Join(dir, "b.messages"), "b.cu:1:2: error: there is no sense in this\n")
	write(made, "")
	fails(false, "b.cu:1:2: error: there is no sense in this")
	if text, err := os.ReadFile(made); err != nil || string(text) != want {
		t.Errorf("PTX beside a source that fails is %q, %v", text, err)
	}
	fails(true, "there is no sense in this")

	if err := os.Remove(filepath.Join(dir, "b.messages")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "b.compiled"), compiled)
	fails(false, "b.cu: kernel k is not written as")

	// Each source is compiled for its own architecture alone.
	architectures := filepath.Join(dir, "architectures")
	for _, name := range []string{"b.cu", "b.compiled", "architectures"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sm_90a"), 0o777); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "sm_90a", "w.cu"), strings.ReplaceAll(source, "k(", "w("))
	write(filepath.Join(dir, "sm_90a", "w.compiled"), strings.ReplaceAll(compiled, "k(", "w("))
	works(false)
	works(true)
	if text, err := os.ReadFile(filepath.Join(dir, "ptx", "sm_90a", "w.ptx")); err != nil || !strings.HasPrefix(string(text), "// Code generated from sm_90a/w.cu by gen") {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(architectures); err != nil || strings.Count(string(text), "sm_80\n") != 2 || strings.Count(string(text), "sm_90a\n") != 2 {
		t.Errorf("compiled for %q, %v", text, err)
	}
}

func TestNoCompiler(t *testing.T) {
	dir := folder(t, map[string]string{"a.cu": "struct XParams { int n; };\nKERNEL k(XParams p) {}\n"})
	if err := run(dir, "no-such-compiler", false); err == nil || !strings.Contains(err.Error(), "CLANG=NAME") {
		t.Errorf("error %v", err)
	}
}
