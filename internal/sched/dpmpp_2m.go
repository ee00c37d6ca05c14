package sched

import "math"

func init() {
	RegisterSampler("dpmpp_2m", Sampler{
		About: "DPM-Solver++(2M), Lu et al. 2022: multistep on x0",
		Order: 2, Calls: 1, Kept: 1, Steps: dpmpp2M,
	})
}

// dpmpp2M is DPM-Solver++(2M) of Lu, Zhou, Bao, Chen, Li & Zhu, "DPM-Solver++" (2022), Algorithm 2.
// With h the step in lambda, m_k the x_0 predicted at node k and r = h_{k-1} / h_k:
//
//	D      = (1 + 1/(2r)) m_k - 1/(2r) m_{k-1}
//	x_prev = Noise_prev/Noise x_t - Signal_prev (exp(-h) - 1) D
//
// The first step has D = m_0, and so has the last to x_0.
func dpmpp2M(_ *Schedule, nodes []Node, _ Options) ([]Step, error) {
	steps := make([]Step, len(nodes)-1)
	for k, from := range nodes[:len(nodes)-1] {
		steps[k] = Step{Node: from, Prev: extrapolate(firstOrder(from, nodes[k+1]), nodes, k)}
		steps[k].Kept[0] = Row{OnX0: 1}
	}
	return steps, nil
}

// extrapolate puts D of the 2M methods in place of the x_0 in row, of the k-th step;
// m_{k-1} is kept value 0.
func extrapolate(row Row, nodes []Node, k int) Row {
	h := nodes[k+1].Lambda() - nodes[k].Lambda()
	if k == 0 || math.IsInf(h, 1) {
		return row
	}
	r := (nodes[k].Lambda() - nodes[k-1].Lambda()) / h
	share := row.OnX0 / (2 * r)
	row.OnX0 += share
	row.OnKept[0] = -share
	return row
}
