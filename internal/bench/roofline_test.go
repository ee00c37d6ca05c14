package bench

import (
	"math"
	"slices"
	"testing"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cpu"
	"ddpm/internal/graph/cpu/isa"
)

// Groups add up their members, the longest first; each row's floor is of what binds
// it, and a group's that of its rows.
func TestRoofline(t *testing.T) {
	ops := []Op{
		{Group: "a", Kind: "products", Calls: 2, Time: 20 * time.Second, Share: 0.2, Flops: 1000, Bytes: 10},
		{Group: "b", Kind: "alone", Calls: 1, Time: 50 * time.Second, Share: 0.5, Bytes: 250},
		{Group: "a", Kind: "thin products", Calls: 3, Time: 25 * time.Second, Share: 0.25, Flops: 400, Bytes: 90},
		{Group: restGroup, Time: 5 * time.Second, Share: 0.05},
	}
	table := Roofline(ops, &graph.Ceilings{Flops: 100, Bytes: 10})
	var names []string
	for _, g := range table.Groups {
		names = append(names, g.Group)
		for _, m := range g.Members {
			names = append(names, m.Kind)
		}
	}
	if want := []string{"b", "alone", "a", "thin products", "products", restGroup, ""}; !slices.Equal(names, want) {
		t.Errorf("rows %q, want %q", names, want)
	}
	b, a, rest := table.Groups[0], table.Groups[1], table.Groups[2]
	if b.Floor != 25 || b.Computing || b.OfFloor() != 0.5 || b.FlopsPerSecond() != 0 || b.BytesPerSecond() != 5 {
		t.Errorf("what memory bounds: %+v", b.Row)
	}
	thin, thick := a.Members[0], a.Members[1]
	if thin.Floor != 9 || thin.Computing || thick.Floor != 10 || !thick.Computing || thick.OfFloor() != 0.5 || thick.FlopsPerSecond() != 50 {
		t.Errorf("members %+v, %+v", thin, thick)
	}
	if a.Calls != 5 || a.Time != 45*time.Second || a.Share != 0.45 || a.Flops != 1400 || a.Bytes != 100 || a.Floor != 19 || !a.Computing {
		t.Errorf("a group of both: %+v", a.Row)
	}
	if rest.Floor != 0 || rest.OfFloor() != 0 {
		t.Errorf("what is no work has a floor: %+v", rest.Row)
	}
	if all := table.Total; all.Floor != 44 || all.Computing || all.Time != 100*time.Second || all.Calls != 6 || math.Abs(all.Share-1) > 1e-9 {
		t.Errorf("total %+v", all)
	}
	// Without ceilings there is no floor; without times the order is by floor.
	for _, g := range Roofline(ops, nil).Groups {
		if g.Floor != 0 || g.OfFloor() != 0 {
			t.Errorf("a floor without ceilings: %+v", g.Row)
		}
	}
	for i := range ops {
		ops[i].Time = 0
	}
	if first := Roofline(ops, &graph.Ceilings{Flops: 100, Bytes: 10}).Groups[0]; first.Group != "b" || first.OfFloor() != 0 || first.BytesPerSecond() != 0 {
		t.Errorf("without times %+v is first", first.Row)
	}
}

// The work of a small plan, counted by hand.
func TestWorkOf(t *testing.T) {
	const n, h, w, c, k = 2, 4, 4, 8, 16
	b := graph.NewBuilder(graph.Float32)
	x := b.Input("x", graph.Float32, n, h, w, c)
	weight := b.Param("w", graph.ConvWeight, graph.Init{}, 3, 3, c, k)
	bias := b.Param("b", graph.Vector, graph.Init{}, k)
	y := b.Conv(graph.Conv2D{Stride: 1, Top: 1, Bottom: 1, Left: 1, Right: 1}, x, weight, bias)
	loss := b.Mean(b.SquaredError(y, b.Input("target", graph.Float32, n, h, w, k)))
	g, err := b.Finish(loss, map[string]*graph.Node{"loss": loss})
	if err != nil {
		t.Fatal(err)
	}
	host := cpu.New(1, isa.Detect())
	defer host.Close()
	plan, err := graph.Compile(g, host)
	if err != nil {
		t.Fatal(err)
	}
	const runs = 3
	total := Roofline(workOf(plan, host, runs).rows, nil)
	find := func(group string) Row {
		for _, g := range total.Groups {
			if g.Group == group {
				return g.Row
			}
		}
		t.Fatalf("no group %q in %+v", group, total.Groups)
		return Row{}
	}
	const products = 2 * n * h * w * 9 * c * k
	const weights, images, results = 9 * c * k, n * h * w * c, n * h * w * k
	size := int64(g.Layout.Size)
	for group, want := range map[string][3]int64{ // calls, operations, bytes
		"convolution forward 4x4":         {runs, runs * products, runs * 4 * (images + weights + k + results)},
		"convolution weight gradient 4x4": {runs, runs * products, runs * 4 * (images + results + weights)},
		"sums for biases":                 {runs, 0, runs * 4 * (results + k)},
		optimiserGroup:                    {1 + runs, 0, 40*size + runs*12*size},
	} {
		if r := find(group); int64(r.Calls) != want[0] || r.Flops != want[1] || r.Bytes != want[2] {
			t.Errorf("%s: %d calls, %d operations, %d bytes; want %v", group, r.Calls, r.Flops, r.Bytes, want)
		}
	}
	if total.Total.Flops != runs*plan.Flops() {
		t.Errorf("%d operations in all, the plan has %d", total.Total.Flops, runs*plan.Flops())
	}
	// A device apart from the host, in bfloat16, keeps a copy of the weights.
	if got := updateBytes(rounding{host}); got != 42 {
		t.Errorf("%d bytes a parameter, want 42", got)
	}
	words := int64(6*g.Layout.Size + plan.Arena + plan.Kept)
	if got, want := memoryOf(plan, host, runs), 4*words+4*(images+results); got != want {
		t.Errorf("%d bytes of memory, want %d", got, want)
	}
	if got, want := memoryOf(plan, rounding{host}, 1), 4*words+4*(images+results); got != want {
		t.Errorf("%d bytes of memory with rounded weights, want %d", got, want)
	}
}

// rounding is a device apart from the host, in bfloat16.
type rounding struct{ graph.Backend }

func (rounding) Precision() graph.Precision { return graph.BF16 }

// On paper the steps have the operations that they have on a device, and in bfloat16
// activations half the bytes.
func TestWorkOnPaper(t *testing.T) {
	b := cpu.New(1, isa.Detect())
	defer b.Close()
	forward, err := forwardFlops(tiny(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range Modes {
		s := tiny(Paper(graph.BF16))
		s.Model.Channels = 8 // vectors of 8
		s.Train.Accumulate = 2
		narrow, err := Work(mode, s)
		if err != nil {
			t.Fatal(err)
		}
		s.Backend = Paper(graph.FP32)
		wide, err := Work(mode, s)
		if err != nil {
			t.Fatal(err)
		}
		in, out := Roofline(narrow, nil).Total, Roofline(wide, nil).Total
		if in.Flops != out.Flops || in.Calls != out.Calls || in.Bytes >= out.Bytes {
			t.Errorf("%s: in bf16 %d operations on %d bytes in %d calls, in fp32 %d on %d in %d", mode,
				in.Flops, in.Bytes, in.Calls, out.Flops, out.Bytes, out.Calls)
		}
		s = tiny(Paper(graph.FP32))
		ops, err := Work(mode, s)
		if err != nil {
			t.Fatal(err)
		}
		got, want := Roofline(ops, nil).Total.Flops, int64(s.Batch)*forward
		slack := int64(0)
		if mode == "train" {
			want = 3 * int64(s.Train.Batch) * forward
			slack = want / 20 // the gradient of the images, which nobody needs
		}
		if got > want || got < want-slack {
			t.Errorf("%s: %d operations, want %d", mode, got, want)
		}
		s.Model.Groups = 3
		if _, err := Work(mode, s); err == nil {
			t.Errorf("%s: no error of a network that makes no sense", mode)
		}
	}
	p := Paper(graph.BF16)
	if _, err := p.NewState(nil, true); err == nil {
		t.Error("a device on paper has a state")
	}
	if _, err := p.Load(nil, nil, graph.Params); err == nil {
		t.Error("a device on paper loads a program")
	}
}
