package train

import (
	"math"
	"slices"
	"testing"

	"ddpm/internal/rng"
)

func drawKey(i int) rng.Key {
	return rng.Key{Seed: 3, Stream: rng.Timestep, Step: 7, Sample: uint32(i)}
}

// full is an importance sampler of T timesteps that has seen ten losses at each, those of
// t the numbers loss(t, i).
func full(T int, loss func(t, i int) float32) *importance {
	m := newImportance(T, T)
	ts, losses := make([]int, T), make([]float32, T)
	for i := range importanceHistory {
		for t := range T {
			ts[t], losses[t] = t, loss(t, i)
		}
		m.begin(i)
		m.observe(i, ts, losses)
	}
	m.begin(importanceHistory + 1)
	return m
}

func TestImportanceProbabilities(t *testing.T) {
	const T = 4
	loss := func(t, i int) float32 { return float32(t+1) * float32(i) }
	m := full(T, loss)
	var total float64
	var want [T]float64
	for k := range want {
		for i := range importanceHistory {
			want[k] += math.Pow(float64(loss(k, i)), 2) / importanceHistory
		}
		want[k] = math.Sqrt(want[k])
		total += want[k]
	}
	for k := range want {
		want[k] = 0.999*want[k]/total + 0.001/T
		if math.Abs(m.p[k]-want[k]) > 1e-12 {
			t.Errorf("p of t = %d is %g, want %g", k, m.p[k], want[k])
		}
	}

	// Draws have these probabilities, and a weighted loss the mean of a uniform draw.
	const draws = 40_000
	objective := func(t int) float64 { return 1 / float64(1+t) }
	var counts [T]float64
	var mean, uniformMean float64
	for i := range draws {
		k, weight := m.draw(drawKey(i))
		counts[k]++
		mean += weight * objective(k) / draws
		if exact := 1 / (T * want[k]); math.Abs(weight-exact) > 1e-9 {
			t.Fatalf("weight %g at t = %d, want %g", weight, k, exact)
		}
	}
	for k := range counts {
		uniformMean += objective(k) / T
		if std := math.Sqrt(want[k] * (1 - want[k]) / draws); math.Abs(counts[k]/draws-want[k]) > 4*std {
			t.Errorf("t = %d was drawn %g of the time, want %g", k, counts[k]/draws, want[k])
		}
	}
	// The standard deviation of weight times objective is about 0.8.
	if math.Abs(mean-uniformMean) > 4*0.8/math.Sqrt(draws) {
		t.Errorf("the weighted mean is %g, want %g", mean, uniformMean)
	}

	// Only the last ten losses count, and without any loss all t are alike.
	m.observe(20, []int{0, 0, 0, 0}, []float32{0, 0, 0, 0})
	m.begin(22)
	if got, want := m.history[:importanceHistory], []float32{4, 5, 6, 7, 8, 9, 0, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("the history of t = 0 is %v, want %v", got, want)
	}
	none := full(T, func(int, int) float32 { return 0 })
	if !slices.Equal(none.p, []float64{0.25, 0.25, 0.25, 0.25}) {
		t.Errorf("without losses p is %v", none.p)
	}
}

func TestImportanceIsUniformUntilAllTimestepsAreKnown(t *testing.T) {
	const T = 3
	m := newImportance(T, 1)
	k := 0
	observe := func(at int) {
		m.begin(k)
		for i := range 5 {
			got, weight := m.draw(drawKey(i))
			if want, _ := (uniform{T}).draw(drawKey(i)); got != want || weight != 1 {
				t.Fatalf("step %d: t = %d of weight %g, want the uniform draw, %d", k, got, weight, want)
			}
		}
		m.observe(k, []int{at}, []float32{1})
		k++
	}
	for i := range T*importanceHistory - 1 {
		observe(i % T)
	}
	observe(T - 1) // the last loss that lacked; it waits for a step
	m.begin(k)
	if m.p != nil {
		t.Error("the losses of the step before decide")
	}
	m.begin(k + 1)
	if m.p == nil {
		t.Error("ten losses at each t, and the draws are still uniform")
	}
}

// However steps are staged, step k is drawn by the losses of steps 0 .. k-2.
func TestImportanceDoesNotDependOnStaging(t *testing.T) {
	const T, batch, steps = 2, 4, 30
	loss := func(t, k int) float32 { return float32(1 + t*(k%7)) }
	drawn := func(m *importance, k int) []int {
		m.begin(k)
		ts := make([]int, batch)
		for i := range ts {
			ts[i], _ = m.draw(rng.Key{Stream: rng.Timestep, Step: uint32(k), Sample: uint32(i)})
		}
		return ts
	}
	observe := func(m *importance, k int, ts []int) {
		losses := make([]float32, len(ts))
		for i, t := range ts {
			losses[i] = loss(t, k)
		}
		m.observe(k, ts, losses)
	}
	var want [][]int
	unbroken := newImportance(T, batch)
	next := drawn(unbroken, 0)
	for k := range steps {
		ts := next
		want = append(want, ts)
		next = drawn(unbroken, k+1)
		observe(unbroken, k, ts)
	}
	if unbroken.p == nil {
		t.Fatal("the draws are uniform to the end")
	}
	for _, stop := range []int{1, 12, 13, 29} {
		m := newImportance(T, batch)
		for k := range steps {
			if k == stop { // a resumed run has what is in the tensors
				again := newImportance(T, batch)
				for name, values := range again.tensors() {
					copy(values, m.tensors()[name])
				}
				m = again
				m.begin(k)
			}
			ts := drawn(m, k)
			if !slices.Equal(ts, want[k]) {
				t.Fatalf("stopped before step %d: step %d draws %v, want %v", stop, k, ts, want[k])
			}
			if k+1 < steps && k+1 != stop {
				m.begin(k + 1)
			}
			observe(m, k, ts)
		}
		for name, values := range m.tensors() {
			if !slices.Equal(values, unbroken.tensors()[name]) {
				t.Errorf("stopped before step %d: %s is %v, want %v", stop, name, values, unbroken.tensors()[name])
			}
		}
	}
}

func TestLognormalDraws(t *testing.T) {
	const draws, mean, std = 20_000, -0.8, 1.1
	s := newSchedule(t, 12)
	l := newLognormal(s, mean, std)
	counts := make([]float64, s.T())
	for i := range draws {
		k, weight := l.draw(drawKey(i))
		counts[k]++
		if weight != 1 {
			t.Fatalf("weight %g, want 1", weight)
		}
	}
	cdf := func(x float64) float64 { return 0.5 * math.Erfc((mean-x)/std/math.Sqrt2) }
	for k, count := range counts {
		from, to := 0.0, 1.0 // of the normal distribution, up to the middle between neighbours
		if k > 0 {
			from = cdf((l.logSigma[k-1] + l.logSigma[k]) / 2)
		}
		if k+1 < len(counts) {
			to = cdf((l.logSigma[k] + l.logSigma[k+1]) / 2)
		}
		want := to - from
		if tolerance := 4*math.Sqrt(want*(1-want)/draws) + 1e-4; math.Abs(count/draws-want) > tolerance {
			t.Errorf("t = %d, log sigma %.2f, was drawn %.4f of the time, want %.4f", k, l.logSigma[k], count/draws, want)
		}
	}
}
