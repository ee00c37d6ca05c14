package sched

import (
	"math"
	"sort"
)

// Solvers of the diffusion ODE are written with x_0 in place of eps, as in Lu et al., "DPM-Solver++"
// (2022): between two nodes s and t, with h = lambda_t - lambda_s and D the network's x_0 at
// each place on the way,
//
//	x_t = Noise_t/Noise_s x_s + Signal_t integral over l from -h to 0 of exp(l) D dl
//
// Its coefficients stay finite where there is no signal (h = +Inf) and at the end, where x_t = D.
// Wherever a method needs eps, it is the one that fits D, (x - Signal D) / Noise, so that
// clipping x_0 changes it too.

// firstOrder takes D to be constant: the step of ddim with eta 0, and of Euler's method in
// Karras' sigma.
func firstOrder(from, to Node) Row {
	return Row{OnXt: to.Noise / from.Noise, OnX0: -to.Signal * math.Expm1(from.Lambda()-to.Lambda())}
}

// ancestral is the posterior q(x_to | x_from, x_0), eq. 6 and 7 of Ho et al. (2020), for any two
// nodes, and the logarithms of FixedSmall and FixedLarge. With h as above they are
// Noise^2 (1 - exp(-2h)) of one node or the other: nothing cancels.
func ancestral(from, to Node) (mean Row, logVarSmall, logVarLarge float64) {
	h := to.Lambda() - from.Lambda()
	share := -math.Expm1(-2 * h)
	mean = Row{OnXt: to.Noise / from.Noise * math.Exp(-h), OnX0: to.Signal * share}
	return mean, math.Log(to.Noise * to.Noise * share), math.Log(from.Noise * from.Noise * share)
}

// plus is r + factor other.
func (r Row) plus(factor float64, other Row) Row {
	r.OnXt += factor * other.OnXt
	r.OnX0 += factor * other.OnX0
	r.OnEps += factor * other.OnEps
	r.OnNoise += factor * other.OnNoise
	for j := range r.OnKept {
		r.OnKept[j] += factor * other.OnKept[j]
	}
	return r
}

// keptValue is the row that is the j-th kept value.
func keptValue(j int) Row {
	var r Row
	r.OnKept[j] = 1
	return r
}

// NodeAt is the place of a Lambda, the inverse of Node. Beyond the schedule's ends T stays in 0 .. T-1.
func (s *Schedule) NodeAt(lambda float64) Node {
	last := s.T() - 1
	// Lambda falls with t: above is the first timestep at lambda or below it.
	above := sort.Search(last, func(t int) bool { return s.HalfLogSNR(t) <= lambda })
	if above == 0 {
		return nodeOf(0, lambda)
	}
	high, low := s.HalfLogSNR(above-1), s.HalfLogSNR(above)
	share := min((high-lambda)/(high-low), 1)
	if math.IsInf(low, -1) {
		share = 1 - math.Exp(lambda-high) // as in Node
	}
	return nodeOf(float64(above-1)+share, lambda)
}

// maxStages is the most calls of the network in a step of a singlestep solver.
const maxStages = 3

// stage is a place in a singlestep solver's step, and x there: a sum of x at the start of the
// step and of the x_0 predicted by each call so far.
type stage struct {
	Node
	onStart float64
	onX0    [maxStages]float64
}

// start is the stage at the beginning of a step.
func start(n Node) stage { return stage{Node: n, onStart: 1} }

// plus is st + factor other, where st is.
func (st stage) plus(factor float64, other stage) stage {
	st.onStart += factor * other.onStart
	for j := range st.onX0 {
		st.onX0[j] += factor * other.onX0[j]
	}
	return st
}

// eps is the noise that fits the i-th call's x_0, made at st.
func (st stage) eps(i int) stage {
	eps := stage{Node: st.Node}.plus(1/st.Noise, st)
	eps.onX0[i] -= st.Signal / st.Noise
	return eps
}

// A singlestep method lists the stages after the start of a step; the last is its end, to.
type singlestepMethod func(s *Schedule, from, to Node) []stage

// singlestep leads through nodes in steps of p calls, where p is the number of methods and
// methods[p-1] makes such a step. The last step to Clean is of first order, as is one from
// a node without signal. Where opt.Calls leave fewer than p calls over, the step before the last
// is of that lower order, so that the steps of the later nodes are always the later steps.
func singlestep(s *Schedule, nodes []Node, opt Options, methods ...singlestepMethod) []Step {
	var steps []Step
	last := len(nodes) - 2
	for k, from := range nodes[:last+1] {
		to := nodes[k+1]
		p := len(methods)
		rest := max(opt.Calls-1, 0) % p
		switch {
		case to == Clean || from.Signal == 0:
			p = 1
		case k == last-1 && nodes[last+1] == Clean && rest > 0:
			p = rest
		}
		steps = append(steps, stageSteps(from, methods[p-1](s, from, to))...)
	}
	return steps
}

// singlestepNodes is the number of nodes that calls are spent on, p a step.
func singlestepNodes(p int) func(calls int) int {
	return func(calls int) int { return (calls-1+p-1)/p + 1 }
}

// stageSteps are the calls of the network of one step. Kept value j is what is known of x at
// stages[j+1].
func stageSteps(from Node, stages []stage) []Step {
	steps := make([]Step, len(stages))
	for i := range steps {
		// next is stage j after call i.
		next := func(j int) Row {
			row := Row{OnXt: stages[j].onStart}
			if i > 0 {
				row = keptValue(j - 1)
			}
			row.OnX0 = stages[j].onX0[i]
			return row
		}
		steps[i] = Step{Node: from, Prev: next(i)}
		if i > 0 {
			steps[i].Node = stages[i-1].Node
		}
		for j := i + 1; j < len(stages); j++ {
			steps[i].Kept[j-1] = next(j)
		}
	}
	return steps
}

// isLong reports whether a step of a method on eps goes so far in Lambda that it is better made by
// first order: these methods multiply the errors of a later x_0 by about exp(h/2), which ruins
// images of a network that is not perfect, as on the first steps of the cosine schedule. With
// 2.5 no step multiplies them by more than 6, and small steps keep their order.
func isLong(from, to Node) bool { return to.Lambda()-from.Lambda() > 2.5 }

// ddimStages is a step of first order, one call.
func ddimStages(_ *Schedule, from, to Node) []stage {
	row := firstOrder(from, to)
	end := stage{Node: to, onStart: row.OnXt}
	end.onX0[0] = row.OnX0
	return []stage{end}
}
