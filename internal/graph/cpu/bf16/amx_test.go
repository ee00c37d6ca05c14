package bf16

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// Few processors have AMX, so its kernels are also interpreted: the text of
// kernels_amd64.s runs on a model of the registers, each instruction as the Intel
// manual describes it. Instructions written as bytes go by their comments, which
// a test of gen holds to the bytes.

// word is what a general register holds: a number, or an address so many bytes
// from where p points.
type word struct {
	p unsafe.Pointer
	n int
}

func (w word) at(displacement int) unsafe.Pointer { return unsafe.Add(w.p, w.n+displacement) }

// amxMachine is the registers.
type amxMachine struct {
	general map[string]word
	zero    bool        // the flag
	config  *tileConfig // nil if the tiles are not in use
	tiles   [8][16][64]byte
}

// amxKernels are the functions of the file whose argument is an amxTile: by
// name, lines without blanks at their ends.
var amxKernels = sync.OnceValue(func() map[string][]string {
	s, err := os.ReadFile("kernels_amd64.s")
	if err != nil {
		panic(err)
	}
	kernels := map[string][]string{}
	for _, text := range strings.Split(string(s), "TEXT ·")[1:] {
		lines := strings.Split(text, "\n")
		name, _, _ := strings.Cut(lines[0], "(")
		if !strings.HasPrefix(name, "amx") {
			continue
		}
		for _, l := range lines[1:] {
			if strings.HasPrefix(l, "//") {
				break // the next function's comment
			}
			if i := strings.Index(l, "; // "); i >= 0 {
				l = l[i+len("; // "):]
			}
			if l = strings.TrimSpace(l); l != "" {
				kernels[name] = append(kernels[name], l)
			}
		}
	}
	return kernels
})

// interpretAMX runs the kernel for so many tiles.
func interpretAMX(t amxTile, rows, columns int) {
	code := amxKernels()[fmt.Sprintf("amx%dx%d", rows, columns)]
	labels := map[string]int{}
	for i, l := range code {
		if name, ok := strings.CutSuffix(l, ":"); ok {
			labels[name] = i
		}
	}
	m := &amxMachine{general: map[string]word{}}
	for i := 0; i < len(code); i++ {
		name, rest, _ := strings.Cut(code[i], " ")
		args := strings.Split(rest, ", ")
		switch name {
		case "RET":
			if m.config != nil {
				panic("amx: the tiles are still in use at the end")
			}
			return
		case "JMP":
			i = labels[rest]
		case "JEQ":
			if m.zero {
				i = labels[rest]
			}
		case "JNZ":
			if !m.zero {
				i = labels[rest]
			}
		default:
			if !strings.HasSuffix(name, ":") {
				m.execute(&t, name, args)
			}
		}
	}
	panic("amx: a kernel has no end")
}

var (
	amxAddress = regexp.MustCompile(`^(-?\d*)\((\w+)\)(?:\((\w+)\*(\d)\))?$`)
	amxField   = reflect.TypeFor[amxTile]()
)

// execute runs an instruction that does not jump.
func (m *amxMachine) execute(t *amxTile, name string, args []string) {
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			panic(fmt.Sprintf("amx: %s %q: %v", name, args, err))
		}
		return n
	}
	// address is a memory operand: base, displacement and scaled index.
	address := func(s string) (base word, displacement, index int) {
		a := amxAddress.FindStringSubmatch(s)
		if a == nil {
			panic(fmt.Sprintf("amx: %s: no address %q", name, s))
		}
		if a[1] != "" {
			displacement = number(a[1])
		}
		if a[3] != "" {
			index = m.general[a[3]].n * number(a[4])
		}
		return m.general[a[2]], displacement, index
	}
	value := func(s string) word {
		if s == "t+0(FP)" {
			return word{p: unsafe.Pointer(t)}
		}
		if immediate, ok := strings.CutPrefix(s, "$"); ok {
			return word{n: number(immediate)}
		}
		if r, ok := m.general[s]; ok {
			return r
		}
		base, displacement, index := address(s)
		at := base.at(displacement + index)
		// Memory holds addresses in the pointers of t alone.
		if base.p == unsafe.Pointer(t) && amxField.Field((base.n+displacement)/8).Type.Kind() == reflect.UnsafePointer {
			return word{p: *(*unsafe.Pointer)(at)}
		}
		return word{n: *(*int)(at)}
	}
	tile := func(s string) int { return number(strings.TrimPrefix(s, "TMM")) }

	switch name {
	case "MOVQ":
		m.general[args[1]] = value(args[0])
	case "LEAQ":
		base, displacement, index := address(args[0])
		m.general[args[1]] = word{base.p, base.n + displacement + index}
	case "ADDQ":
		r := m.general[args[1]]
		m.general[args[1]] = word{r.p, r.n + value(args[0]).n}
	case "DECQ":
		r := m.general[args[0]]
		m.general[args[0]] = word{r.p, r.n - 1}
		m.zero = r.p == nil && r.n == 1
	case "CMPQ":
		m.zero = value(args[0]) == value(args[1])
	case "LDTILECFG":
		base, displacement, _ := address(args[0])
		m.config = (*tileConfig)(base.at(displacement))
		if m.config.palette != 1 || m.config.start != 0 {
			panic(fmt.Sprintf("amx: configuration %+v", m.config))
		}
		m.tiles = [8][16][64]byte{}
	case "TILERELEASE":
		m.config = nil
	case "TILEZERO":
		m.shape(tile(args[0]))
		m.tiles[tile(args[0])] = [16][64]byte{}
	case "TILELOADD":
		base, displacement, stride := address(args[0])
		to := tile(args[1])
		rows, size := m.shape(to)
		m.tiles[to] = [16][64]byte{}
		for i := range rows {
			copy(m.tiles[to][i][:], unsafe.Slice((*byte)(base.at(displacement+i*stride)), size))
		}
	case "TILESTORED":
		base, displacement, stride := address(args[1])
		from := tile(args[0])
		rows, size := m.shape(from)
		for i := range rows {
			copy(unsafe.Slice((*byte)(base.at(displacement+i*stride)), size), m.tiles[from][i][:])
		}
	case "TDPBF16PS":
		m.dot(tile(args[0]), tile(args[1]), tile(args[2]))
	default:
		panic("amx: unknown instruction " + name)
	}
}

// shape is the configured one of a tile in use.
func (m *amxMachine) shape(tile int) (rows, rowBytes int) {
	if m.config == nil {
		panic("amx: the tiles are not configured")
	}
	rows, rowBytes = int(m.config.rows[tile]), int(m.config.rowBytes[tile])
	if rows == 0 || rows > 16 || rowBytes == 0 || rowBytes > 64 || rowBytes%4 != 0 {
		panic(fmt.Sprintf("amx: tile %d is used with %d rows of %d bytes", tile, rows, rowBytes))
	}
	return rows, rowBytes
}

// dot is TDPBF16PS: the first products of all pairs are summed, and the second
// ones, then the two sums, then that and what the tile holds.
func (m *amxMachine) dot(b, a, acc int) {
	rows, accBytes := m.shape(acc)
	aRows, aBytes := m.shape(a)
	bRows, bBytes := m.shape(b)
	if aRows != rows || bBytes != accBytes || aBytes/4 != bRows {
		panic(fmt.Sprintf("amx: shapes of %d, %d and %d do not fit", b, a, acc))
	}
	number := func(tile, i, j int) float32 {
		return flush(Float32(*(*uint16)(unsafe.Pointer(&m.tiles[tile][i][2*j]))))
	}
	for i := range rows {
		for j := range accBytes / 4 {
			var sums [2]float32
			for k := range bRows {
				for odd := range sums {
					sums[odd] = flush(sums[odd] + number(a, i, 2*k+odd)*number(b, k, 2*j+odd))
				}
			}
			sum := (*float32)(unsafe.Pointer(&m.tiles[acc][i][4*j]))
			*sum = flush(*sum + flush(sums[0]+sums[1]))
		}
	}
}

// flush makes denormal numbers zero.
func flush(x float32) float32 {
	if math.Abs(float64(x)) < 0x1p-126 {
		return 0
	}
	return x
}
