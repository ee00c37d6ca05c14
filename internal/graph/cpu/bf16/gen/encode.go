package main

import (
	"fmt"
	"strings"
)

// The Go assembler lacks the instructions below, so they are written as bytes,
// encoded as the Intel 64 and IA-32 Architectures Software Developer's Manual
// has it, volume 2: section 2.3 (VEX), section 2.7 (EVEX) and the pages of the
// instructions.

// Prefixes that VEX and EVEX fold into two bits.
const (
	prefixNone = iota
	prefix66
	prefixF3
	prefixF2
)

// map0F38 is the opcode map of all of these instructions.
const map0F38 = 2

// General registers as the encodings number them.
var general = map[string]int{
	"AX": 0, "CX": 1, "DX": 2, "BX": 3, "SP": 4, "BP": 5, "SI": 6, "DI": 7,
	"R8": 8, "R9": 9, "R10": 10, "R11": 11, "R12": 12, "R13": 13,
}

// not is the bit n of x inverted, as the prefixes hold most bits.
func not(x, n int) byte { return byte(^x>>n) & 1 }

// modRM is the byte that names two registers, or one and a form of memory.
func modRM(mod, reg, rm int) byte { return byte(mod<<6 | reg&7<<3 | rm&7) }

// evex encodes an instruction on three 512-bit registers, without a mask.
func evex(prefix int, opcode byte, reg, vvvv, rm int) []byte {
	return []byte{
		0x62,
		not(reg, 3)<<7 | not(rm, 4)<<6 | not(rm, 3)<<5 | not(reg, 4)<<4 | map0F38,
		byte(^vvvv&15)<<3 | 1<<2 | byte(prefix),
		2<<5 | not(vvvv, 4)<<3,
		opcode,
		modRM(3, reg, rm),
	}
}

// vex begins an instruction of 128 bits, which is how tile instructions count.
// Base and index are the numbers of the registers of a memory operand.
func vex(prefix int, opcode byte, vvvv, base, index int) []byte {
	return []byte{
		0xc4,
		1<<7 | not(index, 3)<<6 | not(base, 3)<<5 | map0F38,
		byte(^vvvv&15)<<3 | byte(prefix),
		opcode,
	}
}

// tileMemory encodes a load or store of a tile: rows begin at base +
// displacement and are as many bytes apart as index says.
func tileMemory(prefix int, tile int, base, index string, displacement int32) []byte {
	b, i := general[base], general[index]
	d := uint32(displacement)
	return append(vex(prefix, 0x4b, 0, b, i),
		modRM(2, tile, 4), byte(i&7<<3|b&7), // memory by SIB with 32 bits of displacement
		byte(d), byte(d>>8), byte(d>>16), byte(d>>24))
}

// bytes writes an instruction and what it means.
func (w *writer) bytes(code []byte, format string, a ...any) {
	var s strings.Builder
	for _, b := range code {
		fmt.Fprintf(&s, "BYTE $0x%02x; ", b)
	}
	w.line("%s// "+format, append([]any{s.String()}, a...)...)
}

// dot adds to each lane of Z[acc] the products of its two numbers of Z[a] and
// Z[b].
func (w *writer) dot(b, a, acc int) {
	w.bytes(evex(prefixF3, 0x52, acc, b, a), "VDPBF16PS Z%d, Z%d, Z%d", a, b, acc)
}

// round rounds the 16 numbers of Z[low] and then those of Z[high] to Z[to].
func (w *writer) round(high, low, to int) {
	w.bytes(evex(prefixF2, 0x72, to, high, low), "VCVTNE2PS2BF16 Z%d, Z%d, Z%d", low, high, to)
}

func (w *writer) tileLoad(tile int, base, index string, displacement int32) {
	w.bytes(tileMemory(prefixF2, tile, base, index, displacement), "TILELOADD %d(%s)(%s*1), TMM%d", displacement, base, index, tile)
}

func (w *writer) tileStore(tile int, base, index string, displacement int32) {
	w.bytes(tileMemory(prefixF3, tile, base, index, displacement), "TILESTORED TMM%d, %d(%s)(%s*1)", tile, displacement, base, index)
}

func (w *writer) tileZero(tile int) {
	w.bytes(append(vex(prefixF2, 0x49, 0, 0, 0), modRM(3, tile, 0)), "TILEZERO TMM%d", tile)
}

// tileDot is dot on tiles: acc[i,j] += sum over k of a[i,k] b[k,j].
func (w *writer) tileDot(b, a, acc int) {
	w.bytes(append(vex(prefixF3, 0x5c, b, 0, 0), modRM(3, acc, a)), "TDPBF16PS TMM%d, TMM%d, TMM%d", b, a, acc)
}

// tileConfigure loads the shapes of the tiles from memory at base, which is
// neither SP nor BP nor one that ends as they do.
func (w *writer) tileConfigure(base string) {
	b := general[base]
	w.bytes(append(vex(prefixNone, 0x49, 0, b, 0), modRM(0, 0, b)), "LDTILECFG (%s)", base)
}

func (w *writer) tileRelease() {
	w.bytes(append(vex(prefixNone, 0x49, 0, 0, 0), modRM(3, 0, 0)), "TILERELEASE")
}
