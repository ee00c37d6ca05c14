package eval

import (
	"encoding/json"
	"strings"
	"testing"
)

func testReport(loss float64) *Report {
	return &Report{
		Images: 5, T: 6, Stride: 2, Estimate: true, Variance: "fixed_small", Clip: true,
		LSimple: loss, LSimpleSE: 0.001, BitsPerDim: 4, BitsPerDimSE: 0.1, Prior: 0.25, Decoder: 1.75,
		Quartiles: [4]Quartile{{First: 0, Last: 1, Evaluations: 4, LSimple: 0.5, KL: 1}, {First: 2, Last: 2, Evaluations: 2, LSimple: 0.25, KL: 0.5}, {First: 3, Last: 4, Evaluations: 2, LSimple: 0.125, KL: 0.25}, {First: 5, Last: 5}},
	}
}

func TestSummaryText(t *testing.T) {
	s := Summary{Model: "m", Data: "d", EMA: testReport(0.125), Raw: testReport(0.375)}
	var b strings.Builder
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `m
5 held-out images of d, every 2nd of 6 timesteps: an estimate (--stride 1 takes all)

                       EMA weights   raw weights
L_simple                   0.12500       0.37500
  standard error           0.00100       0.00100
  t 0-1                    0.50000       0.50000
  t 2-2                    0.25000       0.25000
  t 3-4                    0.12500       0.12500
bits/dim                   4.00000       4.00000
  standard error           0.10000       0.10000
  decoder, t 0             1.75000       1.75000
  KL, t 1-1                1.00000       1.00000
  KL, t 2-2                0.50000       0.50000
  KL, t 3-4                0.25000       0.25000
  KL, t 5-5                0.00000       0.00000
  prior                    0.25000       0.25000

bits/dim with variance fixed_small and x_0 clipped
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}

	s.EMA, s.Raw.Estimate, s.Shapes = nil, false, &ShapesScore{Images: 3, Score: 50}
	b.Reset()
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"5 held-out images of d, all 6 timesteps", "                           weights", "3 samples: score 50.0, valid"} {
		if !strings.Contains(b.String(), "\n"+line) {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
}

func TestSummaryJSON(t *testing.T) {
	text, err := json.Marshal(Summary{Model: "m", Data: "d", Raw: testReport(0.5)})
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.HasPrefix(s, `{"model":"m","step":0,"data":"d","raw":{"images":5,`) || strings.Contains(s, "shapes_score") {
		t.Error(s)
	}
}

func TestOrdinal(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 112: "112th", 103: "103rd"} {
		if got := ordinal(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
