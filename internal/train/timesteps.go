package train

import (
	"maps"
	"math"
	"slices"
	"sort"

	"ddpm/internal/rng"
	"ddpm/internal/sched"
)

// The values of train.timesteps.
const (
	timestepsUniform    = "uniform"
	timestepsImportance = "importance"
	timestepsLognormal  = "lognormal"
)

// timesteps draws the t of training images.
type timesteps interface {
	// draw is a t as a function of key, and what the loss there is multiplied by.
	draw(key rng.Key) (t int, weight float64)
}

// timestepKinds are what train.timesteps names, for runs with batches of c.Batch images.
var timestepKinds = map[string]func(c Config, s *sched.Schedule) timesteps{
	timestepsUniform:    func(_ Config, s *sched.Schedule) timesteps { return uniform{s.T()} },
	timestepsImportance: func(c Config, s *sched.Schedule) timesteps { return newImportance(s.T(), c.Batch) },
	timestepsLognormal: func(c Config, s *sched.Schedule) timesteps {
		return newLognormal(s, c.LognormalMean, c.LognormalStd)
	},
}

// TimestepKinds lists the values of train.timesteps.
func TimestepKinds() []string { return slices.Sorted(maps.Keys(timestepKinds)) }

// newTimesteps is the one of a run; where none is named, uniform.
func (c Config) newTimesteps(s *sched.Schedule) timesteps {
	if kind := timestepKinds[c.Timesteps]; kind != nil {
		return kind(c, s)
	}
	return uniform{s.T()}
}

// uniform draws every t alike.
type uniform struct{ T int }

func (u uniform) draw(key rng.Key) (int, float64) { return key.IntN(u.T), 1 }

// lognormal draws ln sigma ~ N(mean, std^2) and takes the t whose noise relative to the
// signal, sigma_t = sqrt((1-abar_t) / abar_t), is nearest in the logarithm (Karras et al.,
// "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1). Losses
// are not weighted back: it is another objective.
type lognormal struct {
	logSigma  []float64 // [T], rising
	mean, std float64
}

func newLognormal(s *sched.Schedule, mean, std float64) *lognormal {
	l := &lognormal{make([]float64, s.T()), mean, std}
	for t := range l.logSigma {
		l.logSigma[t] = -s.HalfLogSNR(t)
	}
	return l
}

func (l *lognormal) draw(key rng.Key) (int, float64) {
	logSigma := l.mean + l.std*float64(rng.BoxMuller(key.Block(0))[0])
	above, _ := slices.BinarySearch(l.logSigma, logSigma)
	switch {
	case above == 0:
		return 0, 1
	case above == len(l.logSigma), logSigma-l.logSigma[above-1] < l.logSigma[above]-logSigma:
		return above - 1, 1
	}
	return above, 1
}

// importance draws a t the more often, the larger its losses are,
//
//	p_t = (1 - 0.001) sqrt(E L_t^2) / sum of those + 0.001 / T
//
// where E is the mean over the last 10 losses at t, and weighs losses by 1 / (T p_t), so that
// their mean still estimates that of the objective, with less variance (Nichol & Dhariwal
// 2021, section 3.3). Until every t has 10 losses, all are alike.
//
// A step is drawn while the one before it runs. So step k draws by the losses of steps
// 0 .. k-2, and those of the last step wait, in a resumed run as in an unbroken one.
type importance struct {
	history []float32 // [T,10] losses at each t, the oldest first
	counts  []float32 // [T] how many of them there are
	// Of the step that waits: its t, [batch], and losses; a t of -1 is none.
	waitingT, waiting []float32
	waitingStep       int // -1 where a checkpoint does not say: it is the last step made

	p, cumulative []float64 // [T]; p sums up to 1; nil while all t are alike
}

const (
	importanceHistory = 10
	importanceUniform = 0.001
)

func newImportance(T, batch int) *importance {
	m := &importance{
		history: make([]float32, T*importanceHistory), counts: make([]float32, T),
		waitingT: make([]float32, batch), waiting: make([]float32, batch), waitingStep: -1,
	}
	for i := range m.waitingT {
		m.waitingT[i] = -1
	}
	return m
}

func (m *importance) draw(key rng.Key) (t int, weight float64) {
	T := len(m.counts)
	if m.p == nil {
		return uniform{T}.draw(key)
	}
	const fine = 1 << 53
	u := float64(key.IntN(fine)) / fine * m.cumulative[T-1]
	t = sort.Search(T-1, func(t int) bool { return m.cumulative[t] > u })
	return t, 1 / (float64(T) * m.p[t])
}

// begin is called before the draws of step k.
func (m *importance) begin(k int) {
	if m.waitingStep < 0 {
		m.waitingStep = k - 1
	}
	if m.waitingStep <= k-2 {
		m.absorb()
	}
	m.weigh()
}

// observe takes the losses of a step at its t.
func (m *importance) observe(k int, ts []int, losses []float32) {
	m.absorb()
	m.waitingStep = k
	copy(m.waiting, losses)
	for i, t := range ts {
		m.waitingT[i] = float32(t)
	}
}

// absorb adds what waits to the history.
func (m *importance) absorb() {
	for i, ft := range m.waitingT {
		t := int(ft)
		if t < 0 || t >= len(m.counts) {
			continue
		}
		m.waitingT[i] = -1
		row := m.history[t*importanceHistory : (t+1)*importanceHistory]
		if n := int(m.counts[t]); 0 <= n && n < importanceHistory {
			row[n] = m.waiting[i]
			m.counts[t]++
			continue
		}
		copy(row, row[1:])
		row[importanceHistory-1] = m.waiting[i]
	}
}

// weigh works out p from the history.
func (m *importance) weigh() {
	if slices.Min(m.counts) < importanceHistory {
		return
	}
	T := len(m.counts)
	if m.p == nil {
		m.p, m.cumulative = make([]float64, T), make([]float64, T)
	}
	var total float64
	for t := range m.p {
		var squares float64
		for _, loss := range m.history[t*importanceHistory : (t+1)*importanceHistory] {
			squares += float64(loss) * float64(loss)
		}
		m.p[t] = math.Sqrt(squares / importanceHistory)
		total += m.p[t]
	}
	var sum float64
	for t := range m.p {
		share := 1 / float64(T) // where no loss is left
		if total > 0 {
			share = m.p[t] / total
		}
		m.p[t] = (1-importanceUniform)*share + importanceUniform/float64(T)
		sum += m.p[t]
		m.cumulative[t] = sum
	}
}

func (m *importance) tensors() map[string][]float32 {
	return map[string][]float32{
		"loss_history": m.history, "loss_counts": m.counts, "waiting_t": m.waitingT, "waiting_losses": m.waiting,
	}
}
