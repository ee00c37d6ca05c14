package data_test

import (
	"bytes"
	"strings"
	"testing"

	"ddpm/internal/data"
)

func TestUnpickleBatch(t *testing.T) {
	const n = 4
	bin := cifarBin(1, n)
	for name, file := range map[string][]byte{"protocol 2": cifarPickle(1, n), "protocol 4": cifarPickle4(1, n)} {
		rows, labels, err := data.UnpickleBatch(file, cifarPixels)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range n {
			record := bin[i*(1+cifarPixels):][:1+cifarPixels]
			if labels[i] != record[0] || !bytes.Equal(rows[i*cifarPixels:(i+1)*cifarPixels], record[1:]) {
				t.Errorf("%s: image %d differs", name, i)
			}
		}
	}
}

// Every prefix of a pickle is an error, never a panic.
func TestUnpickleTruncated(t *testing.T) {
	file := cifarPickle(1, 1)
	for n := range file {
		if n > 600 && n < len(file)-600 {
			continue // inside the pixels
		}
		if _, _, err := data.UnpickleBatch(file[:n], cifarPixels); err == nil {
			t.Fatalf("no error for the first %d of %d bytes", n, len(file))
		}
	}
}

func TestUnpickleRefuses(t *testing.T) {
	const array = "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
	const dtype = "cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
	for name, c := range map[string]struct{ file, word string }{
		"a system call":           {"cposix\nsystem\n(U\x02lstR.", `"posix.system"`},
		"a call by name":          {"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", `"builtins.eval"`},
		"INST":                    {"(S'ls'\nios\nsystem\n.", "opcode 0x53"},
		"OBJ":                     {"(o.", "opcode 0x6f"},
		"NEWOBJ":                  {")\x81.", "opcode 0x81"},
		"PERSID":                  {"Pid\n.", "opcode 0x50"},
		"EXT1":                    {"\x82\x01.", "opcode 0x82"},
		"LONG4":                   {"\x8b\xff\xff\xff\x7f.", "opcode 0x8b"},
		"an array as function":    {array + ")R.", "not a function"},
		"ndarray as function":     {"cnumpy\nndarray\n)R.", "not a function"},
		"reconstruct of other":    {"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.", "not a function"},
		"state of a list":         {"]Nb.", "not an array"},
		"state of nothing":        {"Nb.", "not an array"},
		"state, too few":          {array + "K\x01\x85b.", "five fields"},
		"state, no dtype":         {array + "(K\x01)N\x89U\x00tb.", "not (version, shape, dtype, order, bytes)"},
		"floats":                  {array + "(K\x01K\x01\x85cnumpy\ndtype\nU\x02f4\x85R\x89U\x04abcdtb.", `dtype "f4"`},
		"Fortran order":           {array + "(K\x01K\x01\x85" + dtype + "\x88U\x01atb.", "C order"},
		"shape and bytes":         {array + "(K\x01K\x02\x85" + dtype + "\x89U\x01atb.", "shape [2] with 1 bytes"},
		"negative shape":          {array + "(K\x01J\xff\xff\xff\xff\x85" + dtype + "\x89U\x00tb.", "impossible shape"},
		"huge shape":              {array + "(K\x01(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft" + dtype + "\x89U\x00tb.", "impossible shape"},
		"a list in the shape":     {array + "(K\x01]\x85" + dtype + "\x89U\x00tb.", "impossible shape"},
		"an empty stack":          {".", "empty stack"},
		"no mark":                 {"K\x01t.", "misses a mark"},
		"append to a number":      {"K\x01K\x02a.", "not a list"},
		"item of a list":          {"]U\x01aK\x01s.", "not a dictionary"},
		"half an item":            {"}(U\x01au.", "not a dictionary"},
		"a number as key":         {"}K\x01K\x02s.", "key that is not a string"},
		"memo":                    {"h\x05.", "never stored"},
		"a name of numbers":       {"K\x01K\x02\x93.", "not a string"},
		"protocol 6":              {"\x80\x06.", "protocol 6"},
		"a string longer than it": {"T\xff\xff\xff\x7fabc.", "truncated"},
		"8-byte length":           {"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.", "truncated"},
		"no end of line":          {"cnumpy", "truncated"},
		"nothing":                 {"", "truncated"},
		"endless":                 {strings.Repeat("N0", 3<<20), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := data.Unpickle([]byte(c.file))
			wantError(t, err, c.word)
		})
	}
}

func TestUnpickleBatchWantsImages(t *testing.T) {
	good := string(cifarPickle(1, 2))
	for name, c := range map[string]struct{ file, word string }{
		"a list":         {"].", "not a dictionary"},
		"no data":        {strings.Replace(good, "U\x04data", "U\x04dada", 1), `no array "data"`},
		"other shape":    {strings.Replace(good, "M\x02\x00M\x00\x0c\x86", "M\x04\x00M\x00\x06\x86", 1), "[n, 3072]"},
		"no labels":      {strings.Replace(good, "U\x06labels", "U\x06lapels", 1), `no list "labels"`},
		"labels missing": {strings.Replace(good, "(K\x00K\x01e", "(K\x00e", 1), "as long as its 2 images"},
		"a word":         {strings.Replace(good, "(K\x00K\x01e", "(K\x00U\x00e", 1), "no number as label 1"},
		"a large label":  {strings.Replace(good, "(K\x00K\x01e", "(K\x00M\x00\x01e", 1), "no number as label 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.file == good {
				t.Fatal("the case changes nothing")
			}
			_, _, err := data.UnpickleBatch([]byte(c.file), cifarPixels)
			wantError(t, err, c.word)
		})
	}
}

// Whatever the bytes are, the reader returns, and what it accepts is consistent.
func FuzzUnpickle(f *testing.F) {
	small := func(file []byte) []byte { // images of three bytes
		file = bytes.Replace(file, []byte("M\x00\x0c\x86"), []byte("M\x03\x00\x86"), 1)
		return bytes.Replace(file, noise(1000, cifarPixels), noise(1000, 3), 1)
	}
	f.Add(bytes.Replace(small(cifarPickle(1, 1)), []byte("\x89T\x00\x0c\x00\x00"), []byte("\x89T\x03\x00\x00\x00"), 1))
	f.Add(bytes.Replace(small(cifarPickle4(1, 1)), []byte("\x89B\x00\x0c\x00\x00"), []byte("\x89B\x03\x00\x00\x00"), 1))
	f.Add([]byte("\x80\x02}(U\x06labels](K\x01K\x02eU\x04dataNu."))
	f.Add([]byte("]q\x01h\x01a(h\x01h\x01eh\x01\x85)R."))
	f.Add([]byte("cposix\nsystem\n(U\x02lstR."))
	f.Fuzz(func(t *testing.T, file []byte) {
		rows, labels, err := data.UnpickleBatch(file, 3)
		if err == nil && len(rows) != 3*len(labels) {
			t.Errorf("%d bytes for %d images of three", len(rows), len(labels))
		}
	})
}

func FuzzIDXHeader(f *testing.F) {
	f.Add(idxImages(1, 2, 3, 4), 3)
	f.Add(idxLabels(5, 10), 1)
	f.Add([]byte{0, 0, 8, 255}, 255)
	f.Add(idxFile([]int{1 << 30, 1 << 30, 1 << 30}, nil), 3)
	f.Add([]byte("\x1f\x8b"), 0)
	f.Fuzz(func(t *testing.T, file []byte, dimensions int) {
		dims, size, err := data.ReadIDXHeader(bytes.NewReader(file), dimensions)
		if err != nil {
			return
		}
		want := int64(1)
		for _, d := range dims {
			want *= int64(d)
		}
		if len(dims) != dimensions || size != want || size < 1 {
			t.Errorf("dimensions %v, size %d, want %d of product %d", dims, size, dimensions, want)
		}
	})
}
