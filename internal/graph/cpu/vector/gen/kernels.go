package main

// silu is z / (1 + e^-z) of the numbers in z, using four registers from t on.
func (a *asm) silu(z, t int) {
	a.op("VMOVAPS %s, %s", a.v(z), a.v(t))
	a.exponential(true, t, t+1, t+2, t+3)
	a.op("VADDPS %s, %s, %s", a.c("one"), a.v(t+1), a.v(t+1))
	a.op("VDIVPS %s, %s, %s", a.v(t+1), a.v(z), a.v(z))
}

var siluConstants = with(negExpConstants, "-highest", "-lowest")

// slope is SiLU's derivative at z, in place, using four registers from t on.
// With e = e^-z and s = 1 / (1 + e) it is
//
//	s (1 + z (1 - s)) = s (1 + z e s)
//
// whose right side cancels nothing.
func (a *asm) slope(z, t int) {
	a.op("VMAXPS %s, %s, %s", a.v(z), a.r("flat", t), a.v(z))
	a.op("VMOVAPS %s, %s", a.v(z), a.v(t))
	a.exponential(true, t, t+1, t+2, t+3)
	a.op("VADDPS %s, %s, %s", a.c("one"), a.v(t+1), a.v(t+2))
	a.op("VDIVPS %s, %s, %s", a.v(t+2), a.r("one", t+3), a.v(t+3))
	a.op("VMULPS %s, %s, %s", a.v(t+3), a.v(t+1), a.v(t+1))
	a.op("VFMADD213PS %s, %s, %s", a.c("one"), a.v(t+1), a.v(z))
	a.op("VMULPS %s, %s, %s", a.v(t+3), a.v(z), a.v(z))
}

var slopeConstants = with(negExpConstants, "flat", "-lowest")

// each is a kernel of one walk.
func each(name string, args, consts []string, floats []int, body func(a *asm)) kernel {
	return kernel{name: name, args: args, consts: consts, floats: floats, walks: []walk{{body: body}}}
}

func kernels() []kernel {
	pair := []string{"out", "x", "y"}
	list := []kernel{
		// out = x + y
		each("add", pair, nil, nil, func(a *asm) {
			a.load("x", 0)
			a.load("y", 1)
			a.op("VADDPS %s, %s, %s", a.v(1), a.v(0), a.v(0))
			a.store(0, "out")
		}),
		// out += x + y
		each("addBoth", pair, nil, nil, func(a *asm) {
			a.load("x", 0)
			a.load("y", 1)
			a.load("out", 2)
			a.op("VADDPS %s, %s, %s", a.v(1), a.v(0), a.v(0))
			a.op("VADDPS %s, %s, %s", a.v(0), a.v(2), a.v(0))
			a.store(0, "out")
		}),
		// out += s0 x
		each("addScaled", pair[:2], nil, []int{0}, func(a *asm) {
			a.load("x", 0)
			a.load("out", 1)
			a.op("VFMADD231PS %s, %s, %s", a.v(0), a.s(0), a.v(1))
			a.store(1, "out")
		}),
		// out = s0 x + s1 y
		each("mix", pair, nil, []int{0, 1}, func(a *asm) {
			a.load("x", 0)
			a.load("y", 1)
			a.op("VMULPS %s, %s, %s", a.v(1), a.s(1), a.v(1))
			a.op("VFMADD231PS %s, %s, %s", a.v(0), a.s(0), a.v(1))
			a.store(1, "out")
		}),
		// out = s0 (x - y)
		each("difference", pair, nil, []int{0}, func(a *asm) {
			a.load("x", 0)
			a.load("y", 1)
			a.op("VSUBPS %s, %s, %s", a.v(1), a.v(0), a.v(0))
			a.op("VMULPS %s, %s, %s", a.s(0), a.v(0), a.v(0))
			a.store(0, "out")
		}),
		// out = e^x
		each("exp", pair[:2], with(expConstants, "highest", "lowest"), nil, func(a *asm) {
			a.load("x", 0)
			a.exponential(false, 0, 1, 2, 3)
			a.store(1, "out")
		}),
		// out = silu(x)
		each("silu", pair[:2], siluConstants, nil, func(a *asm) {
			a.load("x", 0)
			a.silu(0, 1)
			a.store(0, "out")
		}),
		// out = y silu'(x)
		each("siluGrad", pair, slopeConstants, nil, func(a *asm) {
			a.load("x", 0)
			a.slope(0, 1)
			a.load("y", 1)
			a.op("VMULPS %s, %s, %s", a.v(1), a.v(0), a.v(0))
			a.store(0, "out")
		}),

		softmax(), softmaxGrad(),

		// sum += x^2
		total("sumSquares", []string{"x", "sum"}, func(a *asm, half int) {
			a.load64("x", half, 2)
		}),
		// sum += (x - y)^2
		total("sumSquaredDifferences", []string{"x", "y", "sum"}, func(a *asm, half int) {
			a.load64("x", half, 2)
			a.load64("y", half, 3)
			a.op("VSUBPD %s, %s, %s", a.v(3), a.v(2), a.v(2))
		}),
		// sum[c] += x
		each("sumColumns", []string{"x", "sum"}, nil, nil, func(a *asm) {
			for half := range 2 {
				a.load64("x", half, half)
				a.accumulate(half, "sum", half, 2+half)
			}
		}),
		// sum[c] += x - t0[c], dot[c] += (x - t0[c])^2; t0 is of float64
		each("moments", []string{"x", "t0", "sum", "dot"}, nil, nil, func(a *asm) {
			for half := range 2 {
				d, t := 2*half, 2*half+1
				a.load64("x", half, d)
				a.op("VSUBPD %s, %s, %s", a.at64("t0", half), a.v(d), a.v(d))
				a.accumulate(d, "sum", half, t)
				a.op("VFMADD213PD %s, %s, %s", a.at64("dot", half), a.v(d), a.v(d))
				a.store64(d, "dot", half)
			}
		}),
		adam(),
		transpose(),
	}
	for _, silu := range []bool{false, true} {
		list = append(list, norm(silu), normSums(silu, false), normSums(silu, true), normGrad(silu))
	}
	return list
}

// total is a kernel that adds a sum of squares to sum[0]; value loads what is
// squared into register 2.
func total(name string, args []string, value func(a *asm, half int)) kernel {
	return kernel{
		name: name, args: args,
		walks: []walk{{
			func(a *asm) {
				a.zero(0)
				a.zero(1)
			},
			func(a *asm) {
				for half := range 2 {
					value(a, half)
					a.op("VFMADD231PD %s, %s, %s", a.v(2), a.v(2), a.v(half))
				}
			},
		}},
		end: func(a *asm) {
			a.fold64(0, 1)
			a.op("VADDSD (R13), X0, X0")
			a.op("VMOVSD X0, (R13)")
		},
	}
}

// softmax is out = e^(s0 (out - max)) / sum, in rows.
func softmax() kernel {
	const most, lower, upper = 0, 1, 2
	return kernel{
		name: "softmax", args: []string{"out"}, floats: []int{0}, consts: with(expConstants, "lowest", "-inf"),
		walks: []walk{
			{
				func(a *asm) { a.op("VMOVUPS %s, %s", a.c("-inf"), a.v(most)) },
				func(a *asm) { a.raise("out", most, 3) },
			},
			{
				func(a *asm) {
					a.fold("VMAXPS", most, 3)
					a.zero(lower)
					a.zero(upper)
				},
				func(a *asm) {
					a.load("out", 3)
					a.op("VSUBPS %s, %s, %s", a.v(most), a.v(3), a.v(3))
					a.op("VMULPS %s, %s, %s", a.s(0), a.v(3), a.v(3))
					a.exponential(false, 3, 4, 5, 6)
					a.store(4, "out")
					a.clearTail(4)
					a.widen(4, 5, 6)
					a.op("VADDPD %s, %s, %s", a.v(5), a.v(lower), a.v(lower))
					a.op("VADDPD %s, %s, %s", a.v(6), a.v(upper), a.v(upper))
				},
			},
			{
				func(a *asm) {
					a.fold64(lower, upper)
					a.op("VCVTSS2SD %s, X2, X2", constantAddress("one"))
					a.op("VDIVSD X1, X2, X1")
					a.op("VCVTSD2SS X1, X1, X1")
					a.op("VBROADCASTSS X1, %s", a.v(1))
				},
				func(a *asm) {
					a.load("out", 3)
					a.op("VMULPS %s, %s, %s", a.v(1), a.v(3), a.v(3))
					a.store(3, "out")
				},
			},
		},
	}
}

// softmaxGrad is out = s0 x (out - sum of x out), in rows.
func softmaxGrad() kernel {
	return kernel{
		name: "softmaxGrad", args: []string{"out", "x"}, floats: []int{0},
		walks: []walk{
			{
				func(a *asm) { a.zero(0) },
				func(a *asm) {
					a.load("x", 1)
					a.load("out", 2)
					a.op("VFMADD231PS %s, %s, %s", a.v(1), a.v(2), a.v(0))
				},
			},
			{
				func(a *asm) { a.fold("VADDPS", 0, 1) },
				func(a *asm) {
					a.load("x", 1)
					a.load("out", 2)
					a.op("VSUBPS %s, %s, %s", a.v(0), a.v(2), a.v(2))
					a.op("VMULPS %s, %s, %s", a.s(0), a.v(1), a.v(1))
					a.op("VMULPS %s, %s, %s", a.v(1), a.v(2), a.v(2))
					a.store(2, "out")
				},
			},
		},
	}
}

// normalised loads x - t0[c] into register 0 and (x - t0[c]) t1[c] + t2[c] into 1.
func (a *asm) normalised(x string) {
	a.load(x, 0)
	a.op("VSUBPS %s, %s, %s", a.at("t0"), a.v(0), a.v(0))
	a.op("VMOVUPS %s, %s", a.at("t1"), a.v(1))
	a.op("VFMADD213PS %s, %s, %s", a.at("t2"), a.v(0), a.v(1))
}

// normName marks the kernels that know SiLU.
func normName(name string, silu bool) string {
	if silu {
		return name + "SiLU"
	}
	return name
}

// norm is out = z, or silu(z), of z = (x - t0[c]) t1[c] + t2[c].
func norm(silu bool) kernel {
	k := kernel{name: normName("norm", silu), args: []string{"out", "x", "t0", "t1", "t2"}}
	if silu {
		k.consts = siluConstants
	}
	k.walks = []walk{{body: func(a *asm) {
		a.normalised("x")
		if silu {
			a.silu(1, 2)
		}
		a.store(1, "out")
	}}}
	return k
}

// slopeOf leaves x - t0[c] in register 0 and dz in register 2: y, or y times
// SiLU's slope at z.
func (a *asm) slopeOf(silu bool, x, y string) {
	if silu {
		a.normalised(x)
		a.slope(1, 2)
		a.load(y, 2)
		a.op("VMULPS %s, %s, %s", a.v(1), a.v(2), a.v(2))
		return
	}
	a.load(x, 0)
	a.op("VSUBPS %s, %s, %s", a.at("t0"), a.v(0), a.v(0))
	a.load(y, 2)
}

// normSums adds dz to sum[c] and dz (x - t0[c]) to dot[c], for a row or for two
// at once, which halves the traffic of the sums.
func normSums(silu, two bool) kernel {
	k := kernel{name: normName("normSums", silu), args: []string{"x", "y", "t0", "sum", "dot"}}
	if two {
		k.name = normName("normSums2", silu)
		k.args, k.twoRows = append(k.args, "t3", "t4"), true
	}
	if silu {
		k.args, k.consts = append(k.args, "t1", "t2"), slopeConstants
	}
	k.walks = []walk{{body: func(a *asm) {
		// The rows' x - t0[c] and dz.
		rows := [][2]int{{0, 2}}
		if two {
			a.slopeOf(silu, "t3", "t4")
			a.op("VMOVAPS %s, %s", a.v(0), a.v(6))
			a.op("VMOVAPS %s, %s", a.v(2), a.v(7))
			rows = append(rows, [2]int{6, 7})
		}
		a.slopeOf(silu, "x", "y")
		for half := range 2 {
			for i, r := range rows {
				a.widenHalf(r[0], half, 8+2*i)
				a.widenHalf(r[1], half, 9+2*i)
			}
			a.op("VFMADD213PD %s, %s, %s", a.at64("dot", half), a.v(9), a.v(8))
			if two {
				a.op("VFMADD231PD %s, %s, %s", a.v(10), a.v(11), a.v(8))
				a.op("VADDPD %s, %s, %s", a.v(11), a.v(9), a.v(9))
			}
			a.store64(8, "dot", half)
			a.accumulate(9, "sum", half, 12)
		}
	}}}
	return k
}

// normGrad is out = t1[c] dz - (t3[c] + t4[c] (x - t0[c])).
func normGrad(silu bool) kernel {
	k := kernel{name: normName("normGrad", silu), args: []string{"out", "x", "y", "t0", "t1", "t3", "t4"}}
	if silu {
		k.args, k.consts = append(k.args, "t2"), slopeConstants
	}
	k.walks = []walk{{body: func(a *asm) {
		a.slopeOf(silu, "x", "y")
		a.op("VMOVUPS %s, %s", a.at("t4"), a.v(3))
		a.op("VFMADD213PS %s, %s, %s", a.at("t3"), a.v(0), a.v(3))
		a.op("VFMSUB132PS %s, %s, %s", a.at("t1"), a.v(3), a.v(2))
		a.store(2, "out")
	}}}
	return k
}

// Fields of call.f that adam reads.
const (
	clip = iota
	beta1
	rest1 // 1 - beta1
	beta2
	rest2
	rate
	correction
	epsilon
	decay
	rest // 1 - decay
)

// adam steps out, the weights, by the gradients x, with Adam's moments t0 and
// t1 and the average t2. All is float64 between one load and one store.
func adam() kernel {
	return kernel{
		name: "adam", args: []string{"out", "x", "t0", "t1", "t2"}, doubles: doubles,
		walks: []walk{{body: func(a *asm) {
			const g, m, v, w, s, t = 0, 1, 2, 3, 4, 5
			for half := range 2 {
				a.load64("x", half, g)
				a.op("VMULPD %s, %s, %s", a.d(clip, s), a.v(g), a.v(g))

				a.load64("t0", half, m)
				a.op("VMULPD %s, %s, %s", a.d(beta1, s), a.v(m), a.v(m))
				a.op("VFMADD231PD %s, %s, %s", a.d(rest1, s), a.v(g), a.v(m))
				a.round(m, t)
				a.storeHalf(t, "t0", half)

				a.load64("t1", half, v)
				a.op("VMULPD %s, %s, %s", a.d(beta2, s), a.v(v), a.v(v))
				a.op("VMULPD %s, %s, %s", a.v(g), a.v(g), a.v(g))
				a.op("VFMADD231PD %s, %s, %s", a.d(rest2, s), a.v(g), a.v(v))
				a.round(v, t)
				a.storeHalf(t, "t1", half)

				a.op("VSQRTPD %s, %s", a.v(v), a.v(v))
				a.op("VMULPD %s, %s, %s", a.d(correction, s), a.v(v), a.v(v))
				a.op("VADDPD %s, %s, %s", a.d(epsilon, s), a.v(v), a.v(v))
				a.op("VMULPD %s, %s, %s", a.d(rate, s), a.v(m), a.v(m))
				a.op("VDIVPD %s, %s, %s", a.v(v), a.v(m), a.v(m))
				a.load64("out", half, w)
				a.op("VSUBPD %s, %s, %s", a.v(m), a.v(w), a.v(w))
				a.round(w, t)
				a.storeHalf(t, "out", half)

				a.op("VCVTPS2PD %s, %s", a.h(t), a.v(w))
				a.load64("t2", half, v)
				a.op("VMULPD %s, %s, %s", a.d(decay, s), a.v(v), a.v(v))
				a.op("VFMADD231PD %s, %s, %s", a.d(rest, s), a.v(w), a.v(v))
				a.round(v, t)
				a.storeHalf(t, "t2", half)
			}
		}}},
	}
}
