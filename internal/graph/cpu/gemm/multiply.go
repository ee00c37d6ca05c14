package gemm

// Product is one matrix product in memory,
//
//	C[M,N] = Bias[N] + A[M,K] B[K,N] + Addend[M,N]
//
// C and Addend have no gaps between their rows; a nil Bias or Addend is zero.
type Product struct {
	M, N, K int
	A, B    Matrix
	// Beside, if it has data, is the right part of A: the columns from Split on.
	Beside Matrix
	Split  int
	// Packed, if not nil, is B as Packer packs it; B itself is not read.
	Packed       []float32
	C            []float32
	Bias, Addend []float32
}

// How a product is cut. The cuts decide how the result rounds, so they depend
// on nothing but the shape.
const (
	blockRows  = 112     // of C in one task: eight of the tallest tiles
	blockSteps = 512     // of K between two visits to C
	chunkSteps = 512     // of K at least in a chunk
	manyTasks  = 32      // enough to balance the pool
	serialWork = 1 << 15 // elements moved faster by one worker than by waking all
	sumGrain   = 1 << 10 // elements of a result whose parts one task sums
)

// chunks is the number of parts of K that are summed separately, where C alone
// makes too few tasks. With a packed B, the weights of a layer, there is one: how a
// row of C rounds must not depend on how many there are, so that an image has the
// same bits in a batch of any size.
func (e *Engine) chunks(m, n, k int, packed bool) int {
	if packed {
		return 1
	}
	tasks := ceil(m, blockRows) * e.Panels(n)
	return max(1, min(manyTasks/2/tasks, k/chunkSteps))
}

// MultiplyWorkspace is the workspace of Multiply; packed says that B comes
// packed.
func (e *Engine) MultiplyWorkspace(m, n, k int, packed bool) int {
	sums := (e.chunks(m, n, k, packed) - 1) * m * n
	if packed {
		return Scratch(sums)
	}
	return Scratch(e.PackedSize(k, n), sums)
}

// span is a run of K between two visits to C.
type span struct {
	first  int // in K
	a      Matrix
	at     int // the span's first column of a
	layout *Layout
}

// spans cuts K into chunks, and those into spans, none of which straddles the
// two parts of A.
func (e *Engine) spans(p Product) [][]span {
	chunks := make([][]span, e.chunks(p.M, p.N, p.K, p.Packed != nil))
	for c := range chunks {
		k0, k1 := p.K*c/len(chunks), p.K*(c+1)/len(chunks)
		part := func(a Matrix, origin, k0, k1 int) {
			n := ceil(k1-k0, blockSteps)
			for i := range n {
				first, end := k0+(k1-k0)*i/n, k0+(k1-k0)*(i+1)/n
				chunks[c] = append(chunks[c], span{first, a, first - origin, a.layout(end - first)})
			}
		}
		if p.Beside.Data == nil {
			part(p.A, 0, k0, k1)
			continue
		}
		if k0 < p.Split {
			part(p.A, 0, k0, min(k1, p.Split))
		}
		if k1 > p.Split {
			part(p.Beside, p.Split, max(k0, p.Split), k1)
		}
	}
	return chunks
}

// Multiply returns a function that computes the product.
func (e *Engine) Multiply(p Product, ws []float32) func() {
	packed, pack := p.Packed, func() {}
	if packed == nil {
		packed = Carve(&ws, e.PackedSize(p.K, p.N))
		pack = e.Packer(packed, p.N, p.K, p.B)
	}
	spans := e.spans(p)
	chunks := len(spans)
	sums := Sums{p.C[:p.M*p.N], Carve(&ws, (chunks-1)*p.M*p.N)}

	rows := ceil(p.M, blockRows)
	panels := e.Panels(p.N)
	groups := min(panels, ceil(manyTasks, rows))
	multiply := func(task, _ int) {
		group, row, chunk := task%groups, task/groups%rows, task/groups/rows
		m0, m1 := p.M*row/rows, p.M*(row+1)/rows
		c := sums.Part(chunk)[m0*p.N:]
		s := Strip{Rows: m1 - m0, Stride: p.N}
		for i, b := range spans[chunk] {
			s.A, s.Layout = b.a.from(m0, b.at), b.layout
			s.Accumulate = i > 0
			// The first span of the first chunk starts the sum.
			starts := chunk == 0 && i == 0
			for j := panels * group / groups; j < panels*(group+1)/groups; j++ {
				s.Panel = e.Panel(j, p.N)
				s.B = packed[s.Panel.First*p.K+b.first*s.Panel.Width:]
				s.C = c[s.Panel.First:]
				s.Bias, s.Addend = nil, nil
				if p.Bias != nil && starts {
					s.Bias = p.Bias[s.Panel.First:]
				}
				if p.Addend != nil && starts {
					s.Addend = p.Addend[m0*p.N+s.Panel.First:]
				}
				e.Run(&s)
			}
		}
	}
	reduce := e.Reducer(sums)
	return func() {
		pack()
		e.pool.Run(chunks*rows*groups, multiply)
		reduce()
	}
}

// from is the data from element (i, k) on.
func (m Matrix) from(i, k int) []float32 {
	if m.Transposed {
		i, k = k, i
	}
	return m.Data[i*m.Stride+k:]
}

// Packer returns a function that packs all panels of a B of n columns, which is
// one matrix of k rows or several stacked.
func (e *Engine) Packer(dst []float32, n, k int, stack ...Matrix) func() {
	cuts := ceil(k*e.wide, serialWork)
	tasks := e.Panels(n) * len(stack) * cuts
	pack := func(task, _ int) {
		p, i, cut := e.Panel(task/cuts/len(stack), n), task/cuts%len(stack), task%cuts
		k0, k1 := k*cut/cuts, k*(cut+1)/cuts
		e.PackPanel(dst[p.First*k*len(stack)+(i*k+k0)*p.Width:], stack[i], p, k0, k1)
	}
	work := n * k * len(stack)
	return func() { e.run(work, tasks, pack) }
}

// run runs tasks on the pool, or here if there is little work in them.
func (e *Engine) run(work, tasks int, fn func(task, worker int)) {
	if work > serialWork {
		e.pool.Run(tasks, fn)
		return
	}
	for task := range tasks {
		fn(task, 0)
	}
}

// Sums are partial sums of one result: the first in the place of the result,
// the others one after another.
type Sums struct{ Result, Others []float32 }

// Part is the place of partial sum i.
func (s Sums) Part(i int) []float32 {
	if i == 0 {
		return s.Result
	}
	n := len(s.Result)
	return s.Others[(i-1)*n : i*n]
}

// Reducer returns a function that adds the other sums to the first, in order.
func (e *Engine) Reducer(s Sums) func() {
	if len(s.Others) == 0 {
		return func() {}
	}
	n := len(s.Result)
	tasks := ceil(n, sumGrain)
	reduce := func(task, _ int) {
		first, end := n*task/tasks, n*(task+1)/tasks
		for i := 0; i < len(s.Others); i += n {
			add(s.Result[first:end], s.Others[i+first:i+end])
		}
	}
	return func() { e.run(len(s.Others), tasks, reduce) }
}

func add(dst, src []float32) {
	src = src[:len(dst)]
	for len(dst) >= 4 {
		d, s := (*[4]float32)(dst), (*[4]float32)(src)
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		dst, src = dst[4:], src[4:]
	}
	for i, v := range src {
		dst[i] += v
	}
}
