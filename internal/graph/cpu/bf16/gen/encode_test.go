package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// decode reads an instruction as the Intel manual lays out VEX (section 2.3.5),
// EVEX (2.7), ModR/M and SIB (2.1.3), and names it in the assembler's order.
func decode(code []byte) (string, error) {
	bit := func(b byte, n int) int { return int(b >> n & 1) }
	type key struct {
		evex   bool
		prefix int
		opcode byte
	}
	const registers, memory, alone = 0, 1, 2
	type form struct {
		name string
		kind int
		// registers: which of reg, vvvv and rm are operands; memory: a store
		// has the register first.
		order string
	}
	// By the instructions' pages in volume 2: all have opcode map 0F38 and W0.
	forms := map[key]form{
		{true, 2, 0x52}:  {"VDPBF16PS", registers, "mvr"},         // EVEX.512.F3.0F38.W0 52 /r
		{true, 3, 0x72}:  {"VCVTNE2PS2BF16", registers, "mvr"},    // EVEX.512.F2.0F38.W0 72 /r
		{false, 2, 0x5c}: {"TDPBF16PS", registers, "vmr"},         // VEX.128.F3.0F38.W0 5C 11:rrr:bbb
		{false, 3, 0x4b}: {"TILELOADD", memory, "load"},           // VEX.128.F2.0F38.W0 4B /r, SIB
		{false, 2, 0x4b}: {"TILESTORED", memory, "store"},         // VEX.128.F3.0F38.W0 4B /r, SIB
		{false, 3, 0x49}: {"TILEZERO", registers, "r"},            // VEX.128.F2.0F38.W0 49 11:rrr:000
		{false, 0, 0x49}: {"LDTILECFG or TILERELEASE", alone, ""}, // VEX.128.NP.0F38.W0 49 /0 or C0
	}
	gpr := []string{"AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}

	var k key
	var r, x, b, v, rest int // bits that extend reg, index or rm, base or rm; vvvv; bytes of prefix and opcode
	switch {
	case len(code) == 6 && code[0] == 0x62:
		p0, p1, p2 := code[1], code[2], code[3]
		if p0&0xf != 2 || p1&0x84 != 4 || p2>>5&3 != 2 || p2&0x97 != 0 {
			return "", fmt.Errorf("EVEX prefix % x is not of 512 bits, W0, map 0F38, unmasked", code[:4])
		}
		k = key{true, int(p1 & 3), code[4]}
		r = 8*(1-bit(p0, 7)) + 16*(1-bit(p0, 4))
		b = 8*(1-bit(p0, 5)) + 16*(1-bit(p0, 6))
		v = int(^p1>>3&15) + 16*(1-bit(p2, 3))
		rest = 5
	case len(code) >= 5 && code[0] == 0xc4:
		p0, p1 := code[1], code[2]
		if p0&0x1f != 2 || p1&0x84 != 0 {
			return "", fmt.Errorf("VEX prefix % x is not of 128 bits, W0, map 0F38", code[:3])
		}
		k = key{false, int(p1 & 3), code[3]}
		r, x, b = 8*(1-bit(p0, 7)), 8*(1-bit(p0, 6)), 8*(1-bit(p0, 5))
		v = int(^p1 >> 3 & 15)
		rest = 4
	default:
		return "", fmt.Errorf("% x has neither prefix", code)
	}
	f, ok := forms[k]
	if !ok {
		return "", fmt.Errorf("% x: no such opcode", code)
	}
	mod, reg, rm := code[rest]>>6, int(code[rest]>>3&7), int(code[rest]&7)
	rest++
	switch f.kind {
	case alone:
		switch {
		case v != 0 || len(code) != rest || reg != 0:
		case mod == 3 && rm == 0:
			return "TILERELEASE", nil
		case mod == 0 && rm != 4 && rm != 5:
			return fmt.Sprintf("LDTILECFG (%s)", gpr[b+rm]), nil
		}
		return "", fmt.Errorf("% x: not a form of the instruction", code)
	case memory:
		if mod != 2 || rm != 4 || v != 0 || r != 0 || len(code) != rest+5 {
			return "", fmt.Errorf("% x: not a tile and SIB with 32 bits of displacement", code)
		}
		sib := code[rest]
		d := int32(uint32(code[rest+1]) | uint32(code[rest+2])<<8 | uint32(code[rest+3])<<16 | uint32(code[rest+4])<<24)
		index := x + int(sib>>3&7)
		if index == 4 {
			return "", fmt.Errorf("% x: no index", code)
		}
		at := fmt.Sprintf("%d(%s)(%s*%d)", d, gpr[b+int(sib&7)], gpr[index], 1<<(sib>>6))
		if f.order == "store" {
			return fmt.Sprintf("%s TMM%d, %s", f.name, reg, at), nil
		}
		return fmt.Sprintf("%s %s, TMM%d", f.name, at, reg), nil
	}
	if mod != 3 || len(code) != rest {
		return "", fmt.Errorf("% x: not on registers", code)
	}
	file := "Z"
	if !k.evex {
		file = "TMM"
		if r != 0 || x != 0 || b != 0 || v > 7 || f.order == "r" && (v != 0 || rm != 0) {
			return "", fmt.Errorf("% x: not on tile registers", code)
		}
		// The manual forbids to use one tile for two operands.
		if f.order == "vmr" && (reg == rm || reg == v || rm == v) {
			return "", fmt.Errorf("% x: one tile for two operands", code)
		}
	}
	text := f.name
	for i, operand := range f.order {
		n := map[rune]int{'r': r + reg, 'v': v, 'm': b + rm}[operand]
		text += fmt.Sprintf("%s %s%d", []string{"", ","}[min(i, 1)], file, n)
	}
	return text, nil
}

// TestEncodings decodes every instruction that is written as bytes: it must be
// the one that its comment names.
func TestEncodings(t *testing.T) {
	s, err := os.ReadFile("../kernels_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^\t((?:BYTE \$0x[0-9a-f]{2}; )+)// (.+)$`)
	value := regexp.MustCompile(`0x[0-9a-f]{2}`)
	seen := map[string]int{}
	for _, m := range line.FindAllStringSubmatch(string(s), -1) {
		var code []byte
		for _, h := range value.FindAllString(m[1], -1) {
			b, err := strconv.ParseUint(h, 0, 8)
			if err != nil {
				t.Fatal(err)
			}
			code = append(code, byte(b))
		}
		got, err := decode(code)
		if err != nil || got != m[2] {
			t.Errorf("% x is %q, meant as %q: %v", code, got, m[2], err)
		}
		seen[regexp.MustCompile(`^\w+`).FindString(m[2])]++
	}
	for _, name := range []string{"VDPBF16PS", "VCVTNE2PS2BF16", "TDPBF16PS", "TILELOADD", "TILESTORED", "TILEZERO", "LDTILECFG", "TILERELEASE"} {
		if seen[name] == 0 {
			t.Errorf("no %s was found", name)
		}
	}
}

// TestDecode holds decode itself to encodings that the assembler of GNU
// binutils makes.
func TestDecode(t *testing.T) {
	for want, code := range map[string][]byte{
		"VDPBF16PS Z30, Z29, Z9":           {0x62, 0x12, 0x16, 0x40, 0x52, 0xce},
		"VCVTNE2PS2BF16 Z0, Z17, Z2":       {0x62, 0xf2, 0x77, 0x40, 0x72, 0xd0},
		"TILELOADD 256(R9)(R10*1), TMM7":   {0xc4, 0x82, 0x7b, 0x4b, 0xbc, 0x11, 0x00, 0x01, 0x00, 0x00},
		"TILESTORED TMM2, 4096(R11)(BX*1)": {0xc4, 0xc2, 0x7a, 0x4b, 0x94, 0x1b, 0x00, 0x10, 0x00, 0x00},
		"LDTILECFG (AX)":                   {0xc4, 0xe2, 0x78, 0x49, 0x00},
		"TDPBF16PS TMM7, TMM4, TMM1":       {0xc4, 0xe2, 0x42, 0x5c, 0xcc},
		"TILEZERO TMM3":                    {0xc4, 0xe2, 0x7b, 0x49, 0xd8},
		"TILERELEASE":                      {0xc4, 0xe2, 0x78, 0x49, 0xc0},
	} {
		if got, err := decode(code); got != want || err != nil {
			t.Errorf("% x is %q, %v, want %q", code, got, err, want)
		}
	}
}
