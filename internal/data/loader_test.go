package data_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"ddpm/internal/data"
)

// numbered is a data set of n images of eight bytes, which hold their number.
// Images of bad are unreadable; slow ones take longer the lower their number.
type numbered struct {
	n    int
	bad  map[int]bool
	slow bool
	gate chan struct{} // if not nil, Read waits for it
}

func (d numbered) Info() data.Info {
	return data.Info{Name: "numbered", Len: d.n, Width: 8, Height: 1, Channels: 1, Classes: []string{"even", "odd"}}
}

func (d numbered) Read(index int, dst []byte) (int, error) {
	if d.gate != nil {
		<-d.gate
	}
	if d.slow {
		time.Sleep(time.Duration(7*index%5) * 100 * time.Microsecond)
	}
	if d.bad[index] {
		binary.LittleEndian.PutUint64(dst, 1<<63) // nobody must see this
		return 0, fmt.Errorf("image-%d.png: damaged", index)
	}
	binary.LittleEndian.PutUint64(dst, uint64(index))
	return index % 2, nil
}

func (d numbered) Close() error { return nil }

func loader(t *testing.T, ds data.Dataset, cfg data.LoaderConfig) *data.Loader {
	t.Helper()
	if cfg.Workers == 0 {
		cfg.Workers = 2
	}
	if cfg.Prefetch == 0 {
		cfg.Prefetch = 2
	}
	l, err := data.NewLoader(ds, cfg)
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// next returns the images of a batch after testing that its parts agree.
func next(t *testing.T, l *data.Loader) []int64 {
	t.Helper()
	b, err := l.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, index := range b.Indices {
		if got := binary.LittleEndian.Uint64(b.Images[8*i:]); int64(got) != index || int64(b.Labels[i]) != index%2 {
			t.Fatalf("element %d: image %d with label %d under index %d", i, got, b.Labels[i], index)
		}
	}
	return slices.Clone(b.Indices)
}

func TestOrderDoesNotDependOnWorkers(t *testing.T) {
	var want []int64
	skipped := 0
	for _, c := range []struct{ workers, prefetch int }{{1, 1}, {2, 3}, {5, 2}, {16, 1}} {
		l := loader(t, numbered{n: 23, slow: true, bad: map[int]bool{4: true, 17: true}}, data.LoaderConfig{
			Batch: 5, Seed: 9, Shuffle: true, Workers: c.workers, Prefetch: c.prefetch, MaxSkipped: 100,
		})
		var got []int64
		for range 15 {
			got = append(got, next(t, l)...)
		}
		if want == nil {
			want, skipped = got, len(l.Cursor().Skipped)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d workers: %v, want %v", c.workers, got, want)
		}
		// 75 images are 3 epochs of 21 readable ones and 12 more.
		if n := len(l.Cursor().Skipped); n != skipped || n != 2 {
			t.Errorf("%d workers: %d skipped, want %d, which is 2", c.workers, n, skipped)
		}
	}
}

func TestEpochsFollowOneAnother(t *testing.T) {
	const n = 10
	l := loader(t, numbered{n: n}, data.LoaderConfig{Batch: 4, Seed: 1, Shuffle: true})
	var got []int64
	for range 5 * n / 4 * 2 {
		got = append(got, next(t, l)...)
	}
	for epoch := range len(got) / n {
		order := data.Shuffled(1, int64(epoch), n)
		for position, index := range got[epoch*n : (epoch+1)*n] {
			if want := order(int64(position)); index != want {
				t.Errorf("epoch %d, position %d: image %d, want %d", epoch, position, index, want)
			}
		}
	}
	plain := loader(t, numbered{n: 3}, data.LoaderConfig{Batch: 7})
	if got := next(t, plain); !slices.Equal(got, []int64{0, 1, 2, 0, 1, 2, 0}) {
		t.Errorf("not shuffled, a batch over three epochs: %v", got)
	}
	if got, want := plain.Cursor(), (data.Cursor{Epoch: 2, Position: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("cursor %+v, want %+v", got, want)
	}
}

func TestEndlessIsNeverShuffled(t *testing.T) {
	l := loader(t, numbered{}, data.LoaderConfig{Batch: 3, Shuffle: true, Start: data.Cursor{Position: 1 << 40}})
	if got := next(t, l); !slices.Equal(got, []int64{1 << 40, 1<<40 + 1, 1<<40 + 2}) {
		t.Errorf("images %v", got)
	}
	if got, want := l.Cursor(), (data.Cursor{Position: 1<<40 + 3}); !reflect.DeepEqual(got, want) {
		t.Errorf("cursor %+v, want %+v", got, want)
	}
}

// Stopping after any batch and starting again from its cursor, written and read
// as JSON, changes nothing.
func TestResumeContinuesExactly(t *testing.T) {
	ds := numbered{n: 11, bad: map[int]bool{3: true}}
	cfg := data.LoaderConfig{Batch: 4, Seed: 5, Shuffle: true, MaxSkipped: 100}
	whole := loader(t, ds, cfg)
	var batches [][]int64
	cursors := []data.Cursor{whole.Cursor()}
	for range 12 {
		batches = append(batches, next(t, whole))
		cursors = append(cursors, whole.Cursor())
	}
	for at, cursor := range cursors {
		text, err := json.Marshal(cursor)
		must(t, err)
		resumed := cfg
		resumed.Workers = 3
		must(t, json.Unmarshal(text, &resumed.Start))
		l := loader(t, ds, resumed)
		if !reflect.DeepEqual(l.Cursor(), cursor) {
			t.Errorf("resumed at %+v: cursor %+v before the first batch", cursor, l.Cursor())
		}
		for k := at; k < len(batches); k++ {
			if got := next(t, l); !slices.Equal(got, batches[k]) || !reflect.DeepEqual(l.Cursor(), cursors[k+1]) {
				t.Fatalf("resumed after batch %d: batch %d is %v, cursor %+v, want %v, %+v", at, k, got, l.Cursor(), batches[k], cursors[k+1])
			}
		}
	}
}

func TestUnreadableImagesAreSkipped(t *testing.T) {
	var told []string
	bad := map[int]bool{1: true, 4: true}
	l := loader(t, numbered{n: 6, bad: bad}, data.LoaderConfig{
		Batch: 4, MaxSkipped: 2, OnSkip: func(err error) { told = append(told, err.Error()) },
	})
	for range 5 { // epochs: the same two images are not counted again
		if got := next(t, l); !slices.Equal(got, []int64{0, 2, 3, 5}) {
			t.Errorf("images %v", got)
		}
	}
	if want := []string{"image-1.png: damaged", "image-4.png: damaged"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	before := l.Cursor()
	if !slices.Equal(before.Skipped, []int64{1, 4}) {
		t.Errorf("cursor %+v, want images 1 and 4 skipped", before)
	}

	// What was skipped counts after a resume, and a third image is one too many.
	bad = map[int]bool{0: true, 1: true, 4: true}
	resumed := loader(t, numbered{n: 6, bad: bad}, data.LoaderConfig{Batch: 3, MaxSkipped: 2, Start: before})
	for range 2 { // the error stays
		_, err := resumed.Next(t.Context())
		wantError(t, err, "3 unreadable images", "data.max_skipped", "which is 2", "image-0.png: damaged")
	}
	if !reflect.DeepEqual(resumed.Cursor(), before) {
		t.Errorf("cursor %+v after a failure, want %+v", resumed.Cursor(), before)
	}
}

func TestStrictStopsAtTheFirst(t *testing.T) {
	l := loader(t, numbered{n: 6, bad: map[int]bool{4: true}}, data.LoaderConfig{Batch: 2, MaxSkipped: 100, Strict: true})
	next(t, l)
	next(t, l)
	_, err := l.Next(t.Context())
	wantError(t, err, "image-4.png: damaged", "data.strict")
}

func TestNothingReadable(t *testing.T) {
	l := loader(t, numbered{n: 3, bad: map[int]bool{0: true, 1: true, 2: true}}, data.LoaderConfig{Batch: 2, MaxSkipped: math.MaxInt})
	_, err := l.Next(t.Context())
	wantError(t, err, "none of the 3 images can be read", "image-2.png")
}

// An interrupted Next loses no image, and Cursor stays where it was.
func TestCancelAndGoOn(t *testing.T) {
	ds := numbered{n: 10, gate: make(chan struct{})}
	l := loader(t, ds, data.LoaderConfig{Batch: 4})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	for range 2 {
		ds.gate <- struct{}{}
	}
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	if _, err := l.Next(ctx); !errors.Is(err, stop) {
		t.Errorf("error %v, want the cause %v", err, stop)
	}
	if !reflect.DeepEqual(l.Cursor(), data.Cursor{}) {
		t.Errorf("cursor %+v, want the start", l.Cursor())
	}
	if l.Waited() < 5*time.Millisecond {
		t.Errorf("waited %v, want about 20ms", l.Waited())
	}
	close(ds.gate)
	if got := next(t, l); !slices.Equal(got, []int64{0, 1, 2, 3}) {
		t.Errorf("images %v after the interruption", got)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		l := loader(t, numbered{n: 100, slow: true}, data.LoaderConfig{Batch: 7, Workers: 5, Prefetch: 3})
		next(t, l)
		l.Close()
		l.Close()
		if _, err := l.Next(t.Context()); !errors.Is(err, data.ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
	}
	for i := 0; runtime.NumGoroutine() > before; i++ { // a goroutine ends shortly after its last defer
		if i == 100 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCloseWakesNext(t *testing.T) {
	ds := numbered{n: 10, gate: make(chan struct{})}
	l := loader(t, ds, data.LoaderConfig{Batch: 4})
	time.AfterFunc(10*time.Millisecond, func() { go l.Close() })
	if _, err := l.Next(t.Context()); !errors.Is(err, data.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
	close(ds.gate)
}

func TestLoaderArguments(t *testing.T) {
	good := data.LoaderConfig{Batch: 1, Workers: 1, Prefetch: 1}
	for _, c := range []struct {
		change func(*data.LoaderConfig)
		words  []string
	}{
		{func(c *data.LoaderConfig) { c.Batch = 0 }, []string{"batch 0"}},
		{func(c *data.LoaderConfig) { c.Workers = 0 }, []string{"0 workers"}},
		{func(c *data.LoaderConfig) { c.Prefetch = 0 }, []string{"prefetch"}},
		{func(c *data.LoaderConfig) { c.Start.Position = -1 }, []string{"position -1"}},
		{func(c *data.LoaderConfig) { c.Start.Position = 11 }, []string{"image 11 of an epoch of 10", "has shrunk"}},
	} {
		cfg := good
		c.change(&cfg)
		_, err := data.NewLoader(numbered{n: 10}, cfg)
		wantError(t, err, c.words...)
	}
}

// A step of training must not leave garbage, nor hold on to memory.
func TestNextDoesNotAllocate(t *testing.T) {
	for name, ds := range map[string]data.Dataset{
		"numbered": numbered{n: 1000},
		"shapes":   open(t, config("shapes", "", 16, 16, 3), data.Train),
		"cifar10":  open(t, fixtures["cifar10"](t), data.Train),
	} {
		l := loader(t, ds, data.LoaderConfig{Batch: 16, Shuffle: true, Workers: 2, Prefetch: 2})
		var images *byte
		per := testing.AllocsPerRun(50, func() {
			b, err := l.Next(t.Context())
			must(t, err)
			if images == nil {
				images = &b.Images[0]
			}
			if images != &b.Images[0] {
				t.Errorf("%s: Next returned another buffer", name)
			}
		})
		// The garbage collector, and the race detector on purpose, drop some of
		// the scratch memory that is kept; without any there would be one
		// allocation or more an image.
		if per >= 16 {
			t.Errorf("%s: %v allocations a batch of 16 images, want fewer than 16", name, per)
		}
	}
}

// Real files through the whole path: a folder with a bad image among good ones.
func TestLoaderOverFolder(t *testing.T) {
	files := pngFiles(t, 12)
	files[5].body = files[5].body[:40]
	cfg := config("folder", writeFolder(t, files...), 8, 6, 3)
	cfg.Classes = true
	ds := open(t, cfg, data.Train)
	var skipped []string
	l := loader(t, ds, data.LoaderConfig{Batch: 11, Workers: 3, MaxSkipped: 1, OnSkip: func(err error) { skipped = append(skipped, err.Error()) }})
	b, err := l.Next(t.Context())
	must(t, err)
	if len(skipped) != 1 || !strings.Contains(skipped[0], "dogs/005.png") {
		t.Errorf("skipped %q, want dogs/005.png", skipped)
	}
	for i, index := range b.Indices {
		want, label := read(t, ds, int(index))
		if !bytes.Equal(b.Images[i*len(want):(i+1)*len(want)], want) || int(b.Labels[i]) != label {
			t.Errorf("element %d is not image %d", i, index)
		}
	}
}

func BenchmarkLoader(b *testing.B) {
	ds, err := data.Open(config("shapes", "", 16, 16, 3), data.Train)
	must(b, err)
	l, err := data.NewLoader(ds, data.LoaderConfig{Batch: 64, Workers: 2, Prefetch: 4})
	must(b, err)
	defer l.Close()
	b.SetBytes(64 * 16 * 16 * 3)
	b.ReportAllocs()
	for b.Loop() {
		_, err := l.Next(b.Context())
		must(b, err)
	}
}
