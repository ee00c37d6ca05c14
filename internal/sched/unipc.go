package sched

import "math"

func init() {
	RegisterSampler("unipc", Sampler{
		About: "UniPC-2, Zhao et al. 2023: multistep on x0, predictor and corrector",
		Order: 3, Calls: 1, Kept: 2,
		Steps: func(_ *Schedule, nodes []Node, _ Options) ([]Step, error) { return unipc(nodes, 2), nil },
	})
	RegisterSampler("unipc_3", Sampler{
		About: "UniPC-3, Zhao et al. 2023: order 4 but for its first steps",
		Order: 3, Calls: 1, Kept: 3,
		Steps: func(_ *Schedule, nodes []Node, _ Options) ([]Step, error) { return unipc(nodes, 3), nil },
	})
}

// unipc is UniPC of Zhao, Bai, Rao, Zhou & Lu, "UniPC: A Unified Predictor-Corrector
// Framework for Fast Sampling of Diffusion Models" (2023), Algorithms 1 and 2, of order 2 or 3, on x_0
// and with B(h) = exp(-h) - 1 (B2 in the paper). From node k to k+1 with h the step in lambda,
// m_k the x_0 predicted at node k and r_i = (lambda_{k-i} - lambda_k) / h, the predictor is
//
//	x_{k+1} = Noise_{k+1}/Noise_k x_k - Signal_{k+1} ((exp(-h) - 1) m_k + B(h) sum_i a_i (m_{k-i} - m_k) / r_i)
//
// Once m_{k+1} is known there, the corrector makes the same step from x_k again, with one more
// term, of m_{k+1} and r = 1. The call of the network for it is that of the next step. The a solve
//
//	sum_i a_i r_i^(j-1) = j! phi_{j+1}(-h) (-h) / B(h),   j = 1, 2, ...
//
// but a single a is 1/2. The corrector raises the order by one. Orders are lower in the first steps,
// and fall again to the last one to x_0, which is of first order and not corrected. Nor is a
// step from a node without signal.
//
// Kept value 0 is all that the corrector knows before m_{k+1}; the others are m_k and m_{k-1}.
func unipc(nodes []Node, order int) []Step {
	steps := make([]Step, len(nodes)-1)
	corrected := Row{OnXt: 1} // x_k
	history := 0              // how many m before m_k are of use
	for k, from := range nodes[:len(nodes)-1] {
		to := nodes[k+1]
		h := to.Lambda() - from.Lambda()
		first := firstOrder(from, to)
		predictor := Row{OnX0: first.OnX0}.plus(first.OnXt, corrected)
		step := Step{Node: from}
		step.Kept[1] = Row{OnX0: 1}
		if order == 3 && k > 0 {
			step.Kept[2] = keptValue(1)
		}
		if math.IsInf(h, 1) {
			step.Prev, corrected, history = predictor, Row{OnXt: 1}, 0
			steps[k] = step
			continue
		}
		if nodes[len(nodes)-1] == Clean {
			history = min(history, len(nodes)-2-k) // the order falls to that of the last step
		}
		var r []float64
		for i := 1; i <= history; i++ {
			r = append(r, (nodes[k-i].Lambda()-from.Lambda())/h)
		}
		// past adds the differences of m before m_k.
		past := func(row Row, a []float64) Row {
			for i, r := range r {
				share := first.OnX0 * a[i] / r
				row = row.plus(share, keptValue(i+1)).plus(-share, Row{OnX0: 1})
			}
			return row
		}
		step.Prev = past(predictor, unipcCoefs(h, r))
		a := unipcCoefs(h, append(r, 1))
		onNew := first.OnX0 * a[history]
		step.Kept[0] = past(predictor, a).plus(-onNew, Row{OnX0: 1})
		steps[k] = step
		corrected = keptValue(0).plus(onNew, Row{OnX0: 1})
		history = min(history+1, order-1)
	}
	return steps
}

// unipcCoefs are the a for the differences at r, at most three.
func unipcCoefs(h float64, r []float64) []float64 {
	n := len(r)
	if n == 1 {
		return []float64{0.5}
	}
	// Solve the Vandermonde system by elimination; its rows are powers of distinct r.
	m := make([][]float64, n)
	b := make([]float64, n)
	factorial := 1.0
	for j := range m {
		m[j] = make([]float64, n)
		for i := range r {
			m[j][i] = math.Pow(r[i], float64(j))
		}
		factorial *= float64(j + 1)
		b[j] = factorial * phi(j+2, -h) / phi(1, -h)
	}
	for j := range m {
		for row := n - 1; row > j; row-- {
			f := m[row][j] / m[j][j]
			for i := j; i < n; i++ {
				m[row][i] -= f * m[j][i]
			}
			b[row] -= f * b[j]
		}
	}
	for j := n - 1; j >= 0; j-- {
		for i := j + 1; i < n; i++ {
			b[j] -= m[j][i] * b[i]
		}
		b[j] /= m[j][j]
	}
	return b
}

// phi is phi_k(z) = sum_i z^i / (i+k)!: phi_0 = exp, phi_{k+1} = (phi_k - 1/k!) / z.
func phi(k int, z float64) float64 {
	if math.Abs(z) > 1 {
		value, factorial := math.Expm1(z)/z, 1.0
		for i := 1; i < k; i++ {
			factorial *= float64(i)
			value = (value - 1/factorial) / z
		}
		return value
	}
	term := 1.0
	for i := 1; i <= k; i++ {
		term /= float64(i)
	}
	var sum float64
	for i := k; math.Abs(term) > 1e-18; i++ {
		sum += term
		term *= z / float64(i+1)
	}
	return sum
}
