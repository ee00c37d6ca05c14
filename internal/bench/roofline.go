package bench

import (
	"cmp"
	"slices"

	"ddpm/internal/graph"
)

// Row is an operation, or a group of them, beside the ceilings of a device.
type Row struct {
	Op
	// Floor is the least time in seconds that its work takes (Williams, Waterman &
	// Patterson, "Roofline", 2009): that of its operations or that of its bytes at the
	// ceilings, whichever is longer. 0 is unknown.
	Floor float64
	// Computing says that for most of the floor arithmetic is what it waits for,
	// rather than memory.
	Computing bool
}

// NewRow puts an operation beside ceilings; without them no floor is known.
func NewRow(op Op, c *graph.Ceilings) Row {
	r := Row{Op: op}
	if c != nil {
		r.Floor, r.Computing = c.Floor(op.Flops, op.Bytes)
	}
	return r
}

// OfFloor is the share of the ceiling that the row reaches, of that ceiling which
// binds it; 0 is unknown.
func (r Row) OfFloor() float64 {
	if r.Time == 0 {
		return 0
	}
	return r.Floor / r.Time.Seconds()
}

// FlopsPerSecond is the speed of the row; 0 if it has no operations or no time.
func (r Row) FlopsPerSecond() float64 { return r.perSecond(r.Flops) }

// BytesPerSecond is the speed of the row; 0 if it has no bytes or no time.
func (r Row) BytesPerSecond() float64 { return r.perSecond(r.Bytes) }

func (r Row) perSecond(n int64) float64 {
	if r.Time == 0 {
		return 0
	}
	return float64(n) / r.Time.Seconds()
}

// Group is rows of one Op.Group, added up.
type Group struct {
	Row
	Members []Row
}

// Table is the work of a step beside ceilings.
type Table struct {
	Groups []Group
	Total  Row
}

// Roofline gathers the operations of a step, the group and the member that takes
// longest first, or where nothing was timed that with the highest floor. Without
// ceilings no floor is known.
func Roofline(ops []Op, c *graph.Ceilings) *Table {
	t := &Table{}
	total := sum{row: Row{Op: Op{Group: "total"}}}
	var sums []sum
	for _, op := range ops {
		row := NewRow(op, c)
		i := slices.IndexFunc(t.Groups, func(g Group) bool { return g.Group == op.Group })
		if i < 0 {
			i = len(t.Groups)
			named := Row{Op: Op{Group: op.Group}}
			t.Groups = append(t.Groups, Group{Row: named})
			sums = append(sums, sum{row: named})
		}
		t.Groups[i].Members = append(t.Groups[i].Members, row)
		sums[i].add(row)
		total.add(row)
	}
	for i := range t.Groups {
		t.Groups[i].Row = sums[i].row
		slices.SortStableFunc(t.Groups[i].Members, longest)
	}
	slices.SortStableFunc(t.Groups, func(a, b Group) int { return longest(a.Row, b.Row) })
	t.Total = total.row
	return t
}

func longest(a, b Row) int { return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(b.Floor, a.Floor)) }

// sum adds rows up.
type sum struct {
	row       Row
	computing float64 // of the floor
}

func (s *sum) add(r Row) {
	t := &s.row
	t.Calls += r.Calls
	t.Time += r.Time
	t.Share += r.Share
	t.Flops += r.Flops
	t.Bytes += r.Bytes
	t.Floor += r.Floor
	if r.Computing {
		s.computing += r.Floor
	}
	t.Computing = s.computing > t.Floor-s.computing
}
