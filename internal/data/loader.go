package data

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Batch is a number of images in the order of the epoch.
type Batch struct {
	Images  []byte  // B*H*W*C, HWC after HWC
	Labels  []int32 // B; -1 where the set has no classes
	Indices []int64 // B, image numbers in the data set
}

// Cursor is a place in the stream of images, between two of them.
type Cursor struct {
	Epoch    int64   `json:"epoch"`
	Position int64   `json:"position"`          // in the epoch; the image's index in endless sets
	Skipped  []int64 `json:"skipped,omitempty"` // numbers of the unreadable images met so far, rising
}

// LoaderConfig says in which order and how eagerly to read.
type LoaderConfig struct {
	Batch      int
	Seed       uint64 // of the shuffle
	Shuffle    bool   // each epoch in an order of its own; endless sets are never shuffled
	Workers    int    // goroutines calling Dataset.Read
	Prefetch   int    // batches read ahead
	MaxSkipped int    // unreadable images to skip before Next fails
	Strict     bool   // fail at the first one
	Start      Cursor // where to start; the zero Cursor is the beginning

	// OnSkip is told of each image skipped, from within Next. May be nil.
	OnSkip func(error)
}

// ErrClosed is what Next returns after Close.
var ErrClosed = errors.New("data: loader closed")

// Loader reads batches ahead of their use. The stream of batches is a function
// of the data set, the seed and the start alone.
//
// A ring of slots holds the images that are being read or wait for their turn:
// slot k holds image k, k + len(slots), ... of the stream. Workers fill slots in
// any order; Next empties them in the order of the ring, so an image that has
// to be skipped delays nothing but shifts its successors.
//
// Next and Cursor are for one goroutine; Close may be called from another.
type Loader struct {
	ds   Dataset
	info Info
	cfg  LoaderConfig

	slots []slot
	head  int // slot of the next image of the stream
	ahead Cursor
	order permutation // of epoch ahead.Epoch

	batch   Batch
	filled  int    // images already in batch, kept if Next is interrupted
	inside  Cursor // after the last image taken out of the ring
	cursor  Cursor // after the last batch returned
	badRun  int    // unreadable images in a row
	failure error  // of an earlier Next

	waited  time.Duration
	jobs    chan *slot
	quit    chan struct{}
	closing sync.Once
	workers sync.WaitGroup
}

type slot struct {
	image []byte
	index int64
	label int
	err   error
	after Cursor        // position after this image; Skipped is unused
	ready chan struct{} // receives one token when the image has been read
}

// NewLoader starts reading. The caller closes the Loader, and then the Dataset.
func NewLoader(ds Dataset, cfg LoaderConfig) (*Loader, error) {
	info := ds.Info()
	switch {
	case cfg.Batch < 1:
		return nil, fmt.Errorf("data: batch %d: want 1 or more", cfg.Batch)
	case cfg.Workers < 1:
		return nil, fmt.Errorf("data: %d workers: want 1 or more", cfg.Workers)
	case cfg.Prefetch < 1:
		return nil, fmt.Errorf("data: %d batches of prefetch: want 1 or more", cfg.Prefetch)
	case cfg.Start.Epoch < 0 || cfg.Start.Position < 0:
		return nil, fmt.Errorf("data: start at epoch %d, position %d: want no negative number", cfg.Start.Epoch, cfg.Start.Position)
	case info.Len > 0 && cfg.Start.Position > int64(info.Len):
		return nil, fmt.Errorf("data: start at image %d of an epoch of %d: the data set has shrunk, restore it or start a new run", cfg.Start.Position, info.Len)
	}
	l := &Loader{
		ds: ds, info: info, cfg: cfg,
		slots:  make([]slot, max(cfg.Batch*cfg.Prefetch, cfg.Workers)),
		ahead:  cfg.Start,
		inside: cfg.Start,
		cursor: cfg.Start,
		batch: Batch{
			Images:  make([]byte, cfg.Batch*info.Bytes()),
			Labels:  make([]int32, cfg.Batch),
			Indices: make([]int64, cfg.Batch),
		},
		quit: make(chan struct{}),
	}
	l.jobs = make(chan *slot, len(l.slots))
	l.startEpoch()
	images := make([]byte, len(l.slots)*info.Bytes())
	for i := range l.slots {
		s := &l.slots[i]
		s.image = images[i*info.Bytes() : (i+1)*info.Bytes()]
		s.ready = make(chan struct{}, 1)
		l.refill(s)
	}
	for range cfg.Workers {
		l.workers.Add(1)
		go l.work()
	}
	return l, nil
}

func (l *Loader) work() {
	defer l.workers.Done()
	for {
		select {
		case <-l.quit:
			return
		case s := <-l.jobs:
			s.label, s.err = l.ds.Read(int(s.index), s.image)
			s.ready <- struct{}{}
		}
	}
}

// refill asks for the next image of the stream. It never blocks: there is room
// in the channels for all slots.
func (l *Loader) refill(s *slot) {
	if l.info.Len > 0 && l.ahead.Position == int64(l.info.Len) {
		l.ahead.Epoch++
		l.ahead.Position = 0
		l.startEpoch()
	}
	s.index = l.ahead.Position
	if l.shuffled() {
		s.index = l.order.at(l.ahead.Position)
	}
	l.ahead.Position++
	s.after = l.ahead
	l.jobs <- s
}

func (l *Loader) shuffled() bool { return l.cfg.Shuffle && l.info.Len > 0 }

func (l *Loader) startEpoch() {
	if l.shuffled() {
		l.order = newPermutation(l.cfg.Seed, l.ahead.Epoch, l.info.Len)
	}
}

// Next returns the next batch. It and its slices are valid until the following
// call. A batch that an epoch does not fill is completed from the next epoch. If
// ctx ends first, the error is its cause and no image is lost.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	size := l.info.Bytes()
	for l.failure == nil && l.filled < l.cfg.Batch {
		s := &l.slots[l.head]
		if err := l.wait(ctx, s); err != nil {
			return nil, err
		}
		l.inside.Epoch, l.inside.Position = s.after.Epoch, s.after.Position
		if s.err != nil {
			l.skip(s.index, s.err)
		} else {
			copy(l.batch.Images[l.filled*size:], s.image)
			l.batch.Labels[l.filled], l.batch.Indices[l.filled] = int32(s.label), s.index
			l.filled++
			l.badRun = 0
		}
		l.refill(s)
		l.head = (l.head + 1) % len(l.slots)
	}
	if l.failure != nil {
		return nil, l.failure
	}
	l.filled = 0
	l.cursor = l.inside
	return &l.batch, nil
}

func (l *Loader) wait(ctx context.Context, s *slot) error {
	select {
	case <-l.quit:
		return ErrClosed
	default:
	}
	select {
	case <-s.ready:
		return nil
	default:
	}
	start := time.Now()
	defer func() { l.waited += time.Since(start) }()
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.quit:
		return ErrClosed
	}
}

// skip notes an unreadable image and sets l.failure if it is one too many. An
// image met again, in another epoch, is neither counted nor told again.
func (l *Loader) skip(index int64, err error) {
	at, known := slices.BinarySearch(l.inside.Skipped, index)
	if !known {
		// Cursors that were handed out share the old slice.
		l.inside.Skipped = slices.Insert(slices.Clone(l.inside.Skipped), at, index)
	}
	l.badRun++
	skipped := len(l.inside.Skipped)
	switch {
	case l.cfg.Strict:
		l.failure = fmt.Errorf("data: unreadable image: %w: repair or remove it, or set data.strict to false to skip it", err)
	case skipped > l.cfg.MaxSkipped:
		l.failure = fmt.Errorf("data: %d unreadable images are more than data.max_skipped allows, which is %d; the last: %w: repair or remove them, or raise the limit", skipped, l.cfg.MaxSkipped, err)
	case l.info.Len > 0 && l.badRun >= l.info.Len:
		l.failure = fmt.Errorf("data: none of the %d images can be read; the last: %w", l.info.Len, err)
	case !known && l.cfg.OnSkip != nil:
		l.cfg.OnSkip(err)
	}
}

// Cursor is the place after the last batch that Next returned: a Loader started
// there continues exactly.
func (l *Loader) Cursor() Cursor { return l.cursor }

// Waited is the total time that Next has blocked.
func (l *Loader) Waited() time.Duration { return l.waited }

// Close stops the workers, after the images they are reading. It does not close
// the Dataset.
func (l *Loader) Close() {
	l.closing.Do(func() { close(l.quit) })
	l.workers.Wait()
}
