package gemm

// Product is one matrix product C[M,N] = Bias[N] + A[M,K] B[K,N] in memory.
// C has no gaps between its rows; a nil Bias is zero.
type Product struct {
	M, N, K int
	A, B    Matrix
	C       []float32
	Bias    []float32
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
// makes too few tasks.
func (e *Engine) chunks(m, n, k int) int {
	tasks := ceil(m, blockRows) * e.Panels(n)
	return max(1, min(manyTasks/2/tasks, k/chunkSteps))
}

// MultiplyWorkspace is the workspace of Multiply.
func (e *Engine) MultiplyWorkspace(m, n, k int) int {
	return Scratch(e.PackedSize(k, n), (e.chunks(m, n, k)-1)*m*n)
}

// Multiply returns a function that computes the product.
func (e *Engine) Multiply(p Product, ws []float32) func() {
	packed := Carve(&ws, e.PackedSize(p.K, p.N))
	chunks := e.chunks(p.M, p.N, p.K)
	sums := Sums{p.C[:p.M*p.N], Carve(&ws, (chunks-1)*p.M*p.N)}

	// Each chunk is a run of blocks of K.
	type block struct {
		first  int
		layout *Layout
	}
	blocks := make([][]block, chunks)
	for c := range blocks {
		k0, k1 := p.K*c/chunks, p.K*(c+1)/chunks
		n := ceil(k1-k0, blockSteps)
		for i := range n {
			first, end := k0+(k1-k0)*i/n, k0+(k1-k0)*(i+1)/n
			blocks[c] = append(blocks[c], block{first, p.A.layout(end - first)})
		}
	}

	rows := ceil(p.M, blockRows)
	panels := e.Panels(p.N)
	groups := min(panels, ceil(manyTasks, rows))
	multiply := func(task, _ int) {
		group, row, chunk := task%groups, task/groups%rows, task/groups/rows
		m0, m1 := p.M*row/rows, p.M*(row+1)/rows
		c := sums.Part(chunk)[m0*p.N:]
		s := Strip{Rows: m1 - m0, Stride: p.N}
		for i, b := range blocks[chunk] {
			s.A, s.Layout = p.A.from(m0, b.first), b.layout
			s.Accumulate = i > 0
			for j := panels * group / groups; j < panels*(group+1)/groups; j++ {
				s.Panel = e.Panel(j, p.N)
				s.B = packed[s.Panel.First*p.K+b.first*s.Panel.Width:]
				s.C = c[s.Panel.First:]
				s.Bias = nil
				if p.Bias != nil && task < groups*rows && i == 0 {
					s.Bias = p.Bias[s.Panel.First:]
				}
				e.Run(&s)
			}
		}
	}
	pack := e.Packer(packed, p.N, p.K, p.B)
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
