//go:build gpu && !cpu

package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/kernels"
)

// arenaTest is five arenas in device memory, and the same in float64.
type arenaTest struct {
	*memory
	n            int
	arenas       [5]tensor // weights, gradients, m, v, ema
	want         [5][]float64
	rounded      tensor
	norm         tensor
	scratch      tensor
	scalars, sum tensor
}

func newArenaTest(d *device, n int, std float64) (*arenaTest, error) {
	a := &arenaTest{memory: &memory{device: d}, n: n}
	for i, spread := range [5]float64{1, std, 0.1, 0.1, 1} {
		v := spreadOf(float32s, 0.001*float64(i), spread, n)
		if i == 3 {
			for j, x := range v.Data {
				v.Data[j] = float32s.round(x * x)
			}
		}
		var err error
		if a.arenas[i], err = a.put(v); err != nil {
			return nil, err
		}
		a.want[i] = v.Data
	}
	for _, t := range []struct {
		at    *tensor
		words int
		bf16  bool
	}{
		{&a.rounded, n, true}, {&a.norm, 1, false}, {&a.scratch, gradNormScratch(n) / 4, false}, {&a.scalars, 7, false}, {&a.sum, n, false},
	} {
		*t.at = tensor{shape: graph.Shape{t.words}, bf16: t.bf16}
		var err error
		if t.at.ptr, err = a.room(4*t.words, 0); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *arenaTest) update(u graph.Update, grads tensor, rounded kernels.Ptr) (norm float64, err error) {
	d := a.device
	scalars := adamScalars(u)
	if err := d.stream.Write(a.scalars.ptr, structBytes([]kernels.AdamScalarsParams{scalars})); err != nil {
		return 0, err
	}
	launches := d.gradNormLaunches(grads.ptr, a.n, a.norm.ptr, a.scratch.ptr)
	launches = append(launches, d.adamLaunches(adamArenas{
		params: a.arenas[0].ptr, grads: grads.ptr, m: a.arenas[2].ptr, v: a.arenas[3].ptr, ema: a.arenas[4].ptr, rounded: rounded,
	}, a.n, a.norm.ptr, a.scalars.ptr)...)
	if err := d.launchAll(launches); err != nil {
		return 0, err
	}
	got, err := a.get(a.norm, 0)
	if err != nil {
		return 0, err
	}
	return got[0], nil
}

// step is what graph.Update says, in float64.
func (a *arenaTest) step(u graph.Update, grads []float64) float64 {
	var norm float64
	for _, g := range grads {
		norm += g * g
	}
	norm = math.Sqrt(norm)
	clip := 1.0
	if u.Clip > 0 {
		clip = min(1, u.Clip/(norm+1e-6))
	}
	p, m, v, ema := a.want[0], a.want[2], a.want[3], a.want[4]
	for i, g := range grads {
		g *= clip
		m[i] = u.Beta1*m[i] + (1-u.Beta1)*g
		v[i] = u.Beta2*v[i] + (1-u.Beta2)*g*g
		p[i] -= u.LR / (1 - math.Pow(u.Beta1, float64(u.Step))) * m[i] /
			(math.Sqrt(v[i])/math.Sqrt(1-math.Pow(u.Beta2, float64(u.Step))) + u.Eps)
		ema[i] = u.EMADecay*ema[i] + (1-u.EMADecay)*p[i]
	}
	return norm
}

func (a *arenaTest) compare() error {
	for i, t := range a.arenas {
		got, err := a.get(t, 0)
		if err != nil {
			return err
		}
		if err := near(got, a.want[i], 1e-6, 0); err != nil {
			return fmt.Errorf("arena %d: %w", i, err)
		}
	}
	return nil
}

func (a *arenaTest) compareRounded() error {
	weights, err := a.get(a.arenas[0], 0)
	if err != nil {
		return err
	}
	rounded, err := a.get(a.rounded, 0)
	if err != nil {
		return err
	}
	for i, w := range weights {
		if bfloat16s.round(w) != rounded[i] {
			return fmt.Errorf("weight %d is %v and %v in bfloat16", i, w, rounded[i])
		}
	}
	return nil
}

// onArenas runs f on arenas of awkward sizes.
func onArenas(t *testing.T, std float64, f func(a *arenaTest) error) {
	d := deviceFor(t)
	for _, n := range []int{1, 3, 1024, 16384, 16400, 50003} {
		err := d.Do(func() error {
			a, err := newArenaTest(d, n, std)
			if err != nil {
				return err
			}
			defer a.free()
			return f(a)
		})
		if err != nil {
			t.Errorf("%d elements: %v", n, err)
		}
	}
}

func TestAdam(t *testing.T) {
	for _, clip := range []float64{0, 1, 1e6} {
		onArenas(t, 0.5, func(a *arenaTest) error {
			for step := 1; step <= 3; step++ {
				u := graph.Update{
					Step: step, LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Clip: clip, EMADecay: 0.9999 * (1 - 1/float64(step)),
				}
				rounded := a.rounded.ptr
				if step == 3 {
					rounded = 0
				}
				got, err := a.update(u, a.arenas[1], rounded)
				if err != nil {
					return err
				}
				if want := a.step(u, a.want[1]); math.Abs(got-want) > 2e-7*want {
					return fmt.Errorf("norm %v, want %v", got, want)
				}
				if step == 2 {
					if err := a.compareRounded(); err != nil {
						return err
					}
				}
			}
			return a.compare()
		})
	}
}

// TestNormOfAnySize has gradients whose squares are beyond float32.
func TestNormOfAnySize(t *testing.T) {
	for _, std := range []float64{1e-30, 1e-20, 1, 1e19, 1e30} {
		onArenas(t, std, func(a *arenaTest) error {
			if err := a.device.launchAll(a.device.gradNormLaunches(a.arenas[1].ptr, a.n, a.norm.ptr, a.scratch.ptr)); err != nil {
				return err
			}
			got, err := a.get(a.norm, 0)
			if err != nil {
				return err
			}
			var want float64
			for _, g := range a.want[1] {
				want += g * g
			}
			return near(got, []float64{math.Sqrt(want)}, 2e-7, 0)
		})
	}
}

func TestNotFiniteGradientChangesNothing(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		onArenas(t, 1, func(a *arenaTest) error {
			for _, at := range []int{0, a.n / 2, a.n - 1} {
				grads := slices.Clone(a.want[1])
				grads[at] = bad
				spoilt := value{Operand: graph.Operand{Shape: graph.Shape{a.n}, Data: grads}}
				if err := a.device.stream.Write(a.arenas[1].ptr, spoilt.bytes()); err != nil {
					return err
				}
				norm, err := a.update(graph.Update{Step: 1, LR: 1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, a.arenas[1], a.rounded.ptr)
				if err != nil {
					return err
				}
				if !math.IsNaN(norm) && !math.IsInf(norm, 0) {
					return fmt.Errorf("a gradient of %v at %d has norm %v", bad, at, norm)
				}
			}
			whole := value{Operand: graph.Operand{Shape: graph.Shape{a.n}, Data: a.want[1]}}
			if err := a.device.stream.Write(a.arenas[1].ptr, whole.bytes()); err != nil {
				return err
			}
			for i, t := range a.arenas {
				got, err := a.get(t, 0)
				if err != nil {
					return err
				}
				if !slices.Equal(got, a.want[i]) {
					return fmt.Errorf("a gradient of %v changed arena %d", bad, i)
				}
			}
			return nil
		})
	}
}

func TestAccumulate(t *testing.T) {
	onArenas(t, 1, func(a *arenaTest) error {
		want := make([]float64, a.n)
		for part, scale := range []float64{5, 0.25, -0.75} {
			first := part < 2
			scalars := accumulateScalars(first, scale)
			if err := a.device.stream.Write(a.scalars.ptr, structBytes([]kernels.AccumulateScalarsParams{scalars})); err != nil {
				return err
			}
			grads := a.arenas[part]
			if err := a.device.launchAll(a.device.accumulateLaunches(a.sum.ptr, grads.ptr, a.n, a.scalars.ptr)); err != nil {
				return err
			}
			for i, g := range a.want[part] {
				if first {
					want[i] = 0
				}
				want[i] += scale * g
			}
		}
		got, err := a.get(a.sum, 0)
		if err != nil {
			return err
		}
		return near(got, want, 1e-7, 0)
	})
}
