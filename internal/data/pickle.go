package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// This file reads the pickles of the Python version of CIFAR-10, which are
//
//	{"data": uint8 array [n, 3072], "labels": list of n ints, ...}
//
// A pickle is a program for a stack machine, and running one as Python does can
// execute anything. This machine cannot: its values are inert, it knows the
// opcodes that a dictionary of numbers, strings and arrays needs, and the only
// functions it applies are the two that build a NumPy array, which here merely
// record their arguments. Everything else is an error. Strings and array data
// point into the file, so memory is bounded by its size and by maxPickleOps.

// maxPickleOps bounds the work; a CIFAR-10 batch takes about 40,000 opcodes.
const maxPickleOps = 4 << 20

// The values of the machine, besides nil (None), bool, int64 and float64.
// Byte and text strings are both []byte.
type (
	pickleMark   struct{}
	pickleTuple  []any
	pickleList   struct{ items []any }
	pickleDict   struct{ items map[string]any }
	pickleGlobal string
	pickleDtype  struct{ kind string }
	pickleArray  struct {
		shape []int
		data  []byte // uint8, C order
	}
)

// Names of Python objects a pickle may refer to.
const (
	numpyReconstruct pickleGlobal = "numpy.core.multiarray._reconstruct"
	numpyArray       pickleGlobal = "numpy.ndarray"
	numpyDtype       pickleGlobal = "numpy.dtype"
)

var errPickleShort = errors.New("the pickle is truncated: fetch it again")

type unpickler struct {
	in    []byte // what is left to read
	stack []any
	memo  map[uint32]any
}

// unpickle returns the value that a pickle of protocol 1 to 5 describes.
func unpickle(file []byte) (any, error) {
	u := &unpickler{in: file, memo: map[uint32]any{}}
	for range maxPickleOps {
		op, err := u.byte()
		if err != nil {
			return nil, err
		}
		if op == '.' {
			return u.pop()
		}
		if err := u.step(op); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the pickle has more than %d opcodes", maxPickleOps)
}

func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		version, err := u.byte()
		if err == nil && version > 5 {
			err = fmt.Errorf("pickle protocol %d: want at most 5", version)
		}
		return err
	case 0x95: // FRAME: a length that readers of whole files need not know
		_, err := u.take(8)
		return err

	case '(':
		return u.push(pickleMark{}, nil)
	case '0': // POP
		_, err := u.pop()
		return err
	case 'N':
		return u.push(nil, nil)
	case 0x88:
		return u.push(true, nil)
	case 0x89:
		return u.push(false, nil)
	case 'K':
		v, err := u.uint(1)
		return u.push(int64(v), err)
	case 'M':
		v, err := u.uint(2)
		return u.push(int64(v), err)
	case 'J':
		v, err := u.uint(4)
		return u.push(int64(int32(v)), err)
	case 'G': // BINFLOAT
		b, err := u.take(8)
		if err != nil {
			return err
		}
		return u.push(math.Float64frombits(binary.BigEndian.Uint64(b)), nil)

	case 'U', 'C', 0x8c: // strings, by the size of their length
		return u.pushString(1)
	case 'T', 'B', 'X':
		return u.pushString(4)
	case 0x8d, 0x8e:
		return u.pushString(8)

	case ')':
		return u.push(pickleTuple{}, nil)
	case 0x85, 0x86, 0x87: // TUPLE1 to TUPLE3
		items, err := u.popN(int(op - 0x84))
		return u.push(pickleTuple(items), err)
	case 't':
		items, err := u.popMark()
		return u.push(pickleTuple(items), err)
	case ']':
		return u.push(&pickleList{}, nil)
	case 'a', 'e':
		return u.append(op == 'e')
	case '}':
		return u.push(&pickleDict{items: map[string]any{}}, nil)
	case 's', 'u':
		return u.setItems(op == 'u')

	case 'q', 'r', 0x94:
		return u.put(op)
	case 'h', 'j':
		return u.get(op)

	case 'c', 0x93:
		return u.global(op)
	case 'R':
		return u.reduce()
	case 'b':
		return u.build()
	}
	return fmt.Errorf("pickle opcode %#02x is not one that arrays of images need; refused", op)
}

// Reading.

func (u *unpickler) take(n uint64) ([]byte, error) {
	if n > uint64(len(u.in)) {
		return nil, errPickleShort
	}
	b := u.in[:n:n]
	u.in = u.in[n:]
	return b, nil
}

func (u *unpickler) byte() (byte, error) {
	b, err := u.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// uint reads a little-endian number of 1, 2, 4 or 8 bytes.
func (u *unpickler) uint(size uint64) (uint64, error) {
	b, err := u.take(size)
	if err != nil {
		return 0, err
	}
	var v [8]byte
	copy(v[:], b)
	return binary.LittleEndian.Uint64(v[:]), nil
}

func (u *unpickler) line() (string, error) {
	end := bytes.IndexByte(u.in, '\n')
	if end < 0 {
		return "", errPickleShort
	}
	s := string(u.in[:end])
	u.in = u.in[end+1:]
	return s, nil
}

// The stack.

func (u *unpickler) push(v any, err error) error {
	if err == nil {
		u.stack = append(u.stack, v)
	}
	return err
}

func (u *unpickler) pushString(lengthSize uint64) error {
	n, err := u.uint(lengthSize)
	if err != nil {
		return err
	}
	b, err := u.take(n)
	return u.push(b, err)
}

func (u *unpickler) pop() (any, error) {
	items, err := u.popN(1)
	if err != nil {
		return nil, err
	}
	return items[0], nil
}

func (u *unpickler) popN(n int) ([]any, error) {
	at := len(u.stack) - n
	if at < 0 {
		return nil, errors.New("the pickle takes from an empty stack")
	}
	items := append([]any(nil), u.stack[at:]...)
	u.stack = u.stack[:at]
	return items, nil
}

// popMark takes everything above the topmost mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if u.stack[i] == (any)(pickleMark{}) {
			items, err := u.popN(len(u.stack) - i)
			if err != nil {
				return nil, err
			}
			return items[1:], nil
		}
	}
	return nil, errors.New("the pickle misses a mark")
}

func (u *unpickler) top() any {
	if len(u.stack) == 0 {
		return nil
	}
	return u.stack[len(u.stack)-1]
}

// Operations.

func (u *unpickler) append(many bool) error {
	var items []any
	var err error
	if many {
		items, err = u.popMark()
	} else {
		items, err = u.popN(1)
	}
	if err != nil {
		return err
	}
	list, ok := u.top().(*pickleList)
	if !ok {
		return errors.New("the pickle appends to something that is not a list")
	}
	list.items = append(list.items, items...)
	return nil
}

func (u *unpickler) setItems(many bool) error {
	var items []any
	var err error
	if many {
		items, err = u.popMark()
	} else {
		items, err = u.popN(2)
	}
	if err != nil {
		return err
	}
	dict, ok := u.top().(*pickleDict)
	if !ok || len(items)%2 != 0 {
		return errors.New("the pickle sets items of something that is not a dictionary")
	}
	for i := 0; i < len(items); i += 2 {
		key, ok := items[i].([]byte)
		if !ok {
			return errors.New("the pickle has a dictionary key that is not a string")
		}
		dict.items[string(key)] = items[i+1]
	}
	return nil
}

func (u *unpickler) put(op byte) error {
	at, err := uint64(len(u.memo)), error(nil) // MEMOIZE
	switch op {
	case 'q':
		at, err = u.uint(1)
	case 'r':
		at, err = u.uint(4)
	}
	if err != nil {
		return err
	}
	if len(u.stack) == 0 {
		return errors.New("the pickle takes from an empty stack")
	}
	u.memo[uint32(at)] = u.top()
	return nil
}

func (u *unpickler) get(op byte) error {
	size := uint64(1)
	if op == 'j' {
		size = 4
	}
	at, err := u.uint(size)
	if err != nil {
		return err
	}
	v, ok := u.memo[uint32(at)]
	if !ok {
		return errors.New("the pickle recalls what it never stored")
	}
	return u.push(v, nil)
}

func (u *unpickler) global(op byte) error {
	var module, name string
	var err error
	if op == 'c' {
		if module, err = u.line(); err == nil {
			name, err = u.line()
		}
	} else { // STACK_GLOBAL
		var items []any
		if items, err = u.popN(2); err == nil {
			m, okM := items[0].([]byte)
			n, okN := items[1].([]byte)
			if !okM || !okN {
				return errors.New("the pickle names an object by something that is not a string")
			}
			module, name = string(m), string(n)
		}
	}
	if err != nil {
		return err
	}
	if module == "numpy._core.multiarray" { // since NumPy 2
		module = "numpy.core.multiarray"
	}
	switch g := pickleGlobal(module + "." + name); g {
	case numpyReconstruct, numpyArray, numpyDtype:
		return u.push(g, nil)
	default:
		return fmt.Errorf("the pickle refers to %.80q, which arrays of images do not need; refused", string(g))
	}
}

// reduce applies a function to a tuple: it makes an empty array or a dtype,
// which build completes.
func (u *unpickler) reduce() error {
	items, err := u.popN(2)
	if err != nil {
		return err
	}
	function, _ := items[0].(pickleGlobal)
	arguments, ok := items[1].(pickleTuple)
	if !ok {
		return errors.New("the pickle calls with something that is not a tuple")
	}
	switch {
	case function == numpyReconstruct && len(arguments) == 3 && arguments[0] == any(numpyArray):
		return u.push(&pickleArray{}, nil)
	case function == numpyDtype && len(arguments) >= 1:
		kind, ok := arguments[0].([]byte)
		if !ok {
			return errors.New("the pickle has a dtype without a name")
		}
		return u.push(&pickleDtype{kind: string(kind)}, nil)
	}
	return errors.New("the pickle calls something that is not a function; refused")
}

// build sets the state of an array: (version, shape, dtype, Fortran order, data).
// The state of a dtype is its byte order, which single bytes do not have.
func (u *unpickler) build() error {
	state, err := u.pop()
	if err != nil {
		return err
	}
	switch v := u.top().(type) {
	case *pickleDtype:
		return nil
	case *pickleArray:
		return v.set(state)
	}
	return errors.New("the pickle sets the state of something that is not an array; refused")
}

func (a *pickleArray) set(state any) error {
	fields, _ := state.(pickleTuple)
	if len(fields) != 5 {
		return errors.New("the pickle has an array without the five fields of its state")
	}
	shape, okShape := fields[1].(pickleTuple)
	dtype, okDtype := fields[2].(*pickleDtype)
	fortran, okOrder := fields[3].(bool)
	data, okData := fields[4].([]byte)
	if !okShape || !okDtype || !okOrder || !okData {
		return errors.New("the pickle has an array whose state is not (version, shape, dtype, order, bytes)")
	}
	if dtype.kind != "u1" || fortran {
		return fmt.Errorf("the pickle has an array of dtype %.20q: want u1 in C order", dtype.kind)
	}
	size := int64(1)
	dims := make([]int, len(shape))
	for i, d := range shape {
		n, ok := d.(int64)
		if !ok || n < 0 || (n > 0 && size > math.MaxInt32/n) {
			return errors.New("the pickle has an array of impossible shape")
		}
		size *= n
		dims[i] = int(n)
	}
	if size != int64(len(data)) {
		return fmt.Errorf("the pickle has an array of shape %v with %d bytes", dims, len(data))
	}
	a.shape, a.data = dims, data
	return nil
}

// unpickleBatch reads one batch file of the Python version of CIFAR-10: n rows
// of pixels bytes each, and n labels.
func unpickleBatch(file []byte, pixels int) (rows []byte, labels []byte, err error) {
	v, err := unpickle(file)
	if err != nil {
		return nil, nil, err
	}
	dict, ok := v.(*pickleDict)
	if !ok {
		return nil, nil, errors.New("the pickle is not a dictionary")
	}
	array, ok := dict.items["data"].(*pickleArray)
	if !ok || len(array.shape) != 2 || array.shape[1] != pixels {
		return nil, nil, fmt.Errorf(`the pickle has no array "data" of shape [n, %d]`, pixels)
	}
	list, ok := dict.items["labels"].(*pickleList)
	if !ok || len(list.items) != array.shape[0] {
		return nil, nil, fmt.Errorf(`the pickle has no list "labels" as long as its %d images`, array.shape[0])
	}
	labels = make([]byte, len(list.items))
	for i, item := range list.items {
		label, ok := item.(int64)
		if !ok || label < 0 || label > math.MaxUint8 {
			return nil, nil, fmt.Errorf("the pickle has no number as label %d", i)
		}
		labels[i] = byte(label)
	}
	return array.data, labels, nil
}
