//go:build gpu && !cpu

package train

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"ddpm/internal/graph"
	_ "ddpm/internal/graph/cuda"
	"ddpm/internal/graph/graphtest"
)

var gpuPrecisions = []graph.Precision{graph.FP32, graph.TF32, graph.BF16}

// gpuSetup is newSetup on a GPU, with channels that bf16 precision stores in
// bfloat16.
func gpuSetup(t *testing.T, p graph.Precision) Setup {
	t.Helper()
	s := setupOn(t, graphtest.Open(t, "cuda", p))
	s.Model.Channels = 8
	return s
}

func TestResumedRunEqualsUnbrokenOneOnAGPU(t *testing.T) {
	for _, p := range gpuPrecisions {
		for _, accumulate := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", p, accumulate), func(t *testing.T) { compareResumed(t, gpuSetup(t, p), accumulate) })
		}
	}
}

func TestRunsOnAGPUAreEqual(t *testing.T) {
	for _, p := range gpuPrecisions {
		var checkpoints [2][]byte
		for i := range checkpoints {
			s := gpuSetup(t, p)
			run(t, s)
			checkpoints[i] = content(t, s.Dir.Checkpoint(6))
		}
		if !bytes.Equal(checkpoints[0], checkpoints[1]) {
			t.Errorf("%s: two runs leave different checkpoints", p)
		}
	}
}

// TestGPUAgreesWithCPU compares the losses of twenty steps.
func TestGPUAgreesWithCPU(t *testing.T) {
	losses := func(s Setup) []float64 {
		s.Model.Channels = 8
		s.Train.Steps, s.Train.LogEvery, s.Train.Batch, s.Train.LR = 20, 1, 8, 2e-3
		run(t, s)
		var all []float64
		for _, m := range metrics(t, s.Dir) {
			all = append(all, m.Loss)
		}
		return all
	}
	want := losses(newSetup(t))
	for p, bound := range map[graph.Precision]float64{graph.FP32: 1e-4, graph.TF32: 2e-3, graph.BF16: 1e-2} {
		got := losses(gpuSetup(t, p))
		var worst float64
		for i := range want {
			worst = max(worst, math.Abs(got[i]/want[i]-1))
		}
		t.Logf("%s: losses of %d steps are within %.2g of the CPU's", p, len(want), worst)
		if !(worst <= bound) {
			t.Errorf("%s: losses are off by up to %.2g, want %.2g: %v on the GPU, %v on the CPU", p, worst, bound, got, want)
		}
	}
}

// TestCheckpointsMoveBetweenCPUAndGPU stops a run and goes on on the other device.
func TestCheckpointsMoveBetweenCPUAndGPU(t *testing.T) {
	whole := newSetup(t)
	whole.Model.Channels = 8
	run(t, whole)
	want := metrics(t, whole.Dir)
	for name, devices := range map[string][2]Setup{
		"cpu to gpu": {newSetup(t), gpuSetup(t, graph.FP32)},
		"gpu to cpu": {gpuSetup(t, graph.FP32), newSetup(t)},
	} {
		t.Run(name, func(t *testing.T) {
			first, then := devices[0], devices[1]
			first.Model.Channels, then.Model.Channels = 8, 8
			stopAfter(t, first, 2)
			then.Dir, then.Resume = first.Dir, true
			run(t, then)
			got := metrics(t, then.Dir)
			for i := range want {
				if d := math.Abs(got[i].Loss/want[i].Loss - 1); !(d <= 1e-3) {
					t.Errorf("step %d: loss %v, want %v as on the CPU alone", want[i].Step, got[i].Loss, want[i].Loss)
				}
			}
		})
	}
}
