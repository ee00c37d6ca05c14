package progress

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that only the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *clock { return &clock{time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)} }

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	no := false
	r := New(&out, Options{Total: 100, Now: c.now, Terminal: &no})
	for step := 1; step <= 100; step++ {
		wait := time.Second
		if step == 1 {
			wait = 30 * time.Second // the first step sets up, and must not count
		}
		c.advance(wait)
		r.Update(Status{Step: step, Loss: 0.25, Images: 64 * step, Waiting: 20*time.Second + time.Duration(step)*250*time.Millisecond})
		if step == 12 {
			r.Note("checkpoint written\n")
		}
	}
	r.Finish()
	r.Finish()
	r.Update(Status{Step: 101, Loss: math.NaN()})
	want := `step 1/100  loss 0.2500
step 11/100  loss 0.2500  64.0 img/s  data 25%  eta 1m29s
checkpoint written
step 21/100  loss 0.2500  64.0 img/s  data 25%  eta 1m19s
step 31/100  loss 0.2500  64.0 img/s  data 25%  eta 1m09s
step 41/100  loss 0.2500  64.0 img/s  data 25%  eta 59s
step 51/100  loss 0.2500  64.0 img/s  data 25%  eta 49s
step 61/100  loss 0.2500  64.0 img/s  data 25%  eta 39s
step 71/100  loss 0.2500  64.0 img/s  data 25%  eta 29s
step 81/100  loss 0.2500  64.0 img/s  data 25%  eta 19s
step 91/100  loss 0.2500  64.0 img/s  data 25%  eta 9s
step 100/100  loss 0.2500  64.0 img/s  data 25%  took 2m09s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A resumed run must not count the steps before it as its own speed.
func TestResumed(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	no := false
	r := New(&out, Options{Total: 1000, Start: 900, Every: 3 * time.Second, Now: c.now, Terminal: &no})
	r.Update(Status{Step: 900, Loss: math.NaN()}) // nothing done yet: not a first step
	for step := 901; step <= 904; step++ {
		c.advance(2 * time.Second)
		r.Update(Status{Step: step, Loss: math.NaN(), Images: 8 * (step - 900)})
	}
	r.Finish()
	want := `step 900/1000
step 902/1000  4.00 img/s  eta 3m16s
step 904/1000  4.00 img/s  eta 3m12s
step 904/1000  4.00 img/s  took 8s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestImagesInTheMaking(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	no := false
	r := New(&out, Options{Total: 128, Unit: "image", Every: time.Minute, Now: c.now, Terminal: &no})
	for step := 1; step <= 250; step++ { // 250 denoising steps of the first 64 images
		c.advance(time.Second)
		r.Update(Status{Part: 64 * float64(step) / 250, Loss: math.NaN()})
	}
	r.Finish()
	want := `image 0/128
image 0/128  0.26 img/s  eta 7m19s
image 0/128  0.26 img/s  eta 6m19s
image 0/128  0.26 img/s  eta 5m19s
image 0/128  0.26 img/s  eta 4m19s
image 0/128  0.26 img/s  took 4m10s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestUnknownTotal(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	no := false
	r := New(&out, Options{Unit: "image", Now: c.now, Terminal: &no})
	c.advance(time.Second)
	r.Update(Status{Step: 10, Loss: math.NaN()})
	c.advance(10 * time.Second)
	r.Update(Status{Step: 2010, Loss: math.NaN()})
	if got, want := out.String(), "image 10\nimage 2010  200 img/s\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNothingReported(t *testing.T) {
	var out bytes.Buffer
	r := New(&out, Options{Total: 5})
	r.Finish()
	if out.Len() > 0 {
		t.Errorf("a run without a report printed %q", out.String())
	}
	r.Note("stopped")
	if got := out.String(); got != "stopped\n" {
		t.Errorf("note after the end: %q", got)
	}
}

// screen returns what a terminal shows of out, line by line, without the
// blanks at the end. A line longer than the terminal fails the test.
func screen(t *testing.T, out string, columns int) []string {
	t.Helper()
	out = strings.NewReplacer("\x1b[2K", "\f", "\x1b[0K", "\v").Replace(out)
	lines, column := [][]rune{{}}, 0
	for _, c := range out {
		line := &lines[len(lines)-1]
		switch c {
		case '\n':
			lines, column = append(lines, []rune{}), 0
		case '\r':
			column = 0
		case '\f':
			*line = []rune(strings.Repeat(" ", column))
		case '\v':
			*line = (*line)[:column]
		default:
			if column >= columns {
				t.Fatalf("%d columns are too few for %q", columns, out)
			}
			if column == len(*line) {
				*line = append(*line, c)
			}
			(*line)[column] = c
			column++
		}
	}
	shown := make([]string, len(lines))
	for i, line := range lines {
		shown[i] = strings.TrimRight(string(line), " ")
	}
	return shown
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	yes := true
	columns := 80
	r := New(&out, Options{Total: 2000, Now: c.now, Terminal: &yes, Width: func() int { return columns }})
	var want []string
	check := func(what string, line string) {
		t.Helper()
		if got := screen(t, out.String(), 80); !slices.Equal(got, append(want, line)) {
			t.Errorf("%s:\ngot  %q\nwant %q", what, got, append(want, line))
		}
	}
	r.Note("before the bar")
	want = append(want, "before the bar")
	check("note before", "")
	c.advance(time.Second)
	r.Update(Status{Step: 1, Loss: 1, Images: 32})
	check("first step", "   0% ----------------------------------------  step 1/2000  loss 1.0000")
	c.advance(50 * time.Millisecond)
	before := out.Len()
	r.Update(Status{Step: 2, Loss: 1, Images: 64})
	if out.Len() > before {
		t.Error("redrawn after 50 ms")
	}
	c.advance(99950 * time.Millisecond)
	r.Update(Status{Step: 1001, Loss: 1, Images: 32032, Waiting: time.Second})
	check("half-way", "  50% =====>-------  step 1001/2000  loss 1.0000  320 img/s  data 1%  eta 1m40s")
	r.Note("a note\n")
	want = append(want, "a note")
	check("note", "  50% =====>-------  step 1001/2000  loss 1.0000  320 img/s  data 1%  eta 1m40s")
	columns = 40
	before = out.Len()
	c.advance(time.Second)
	r.Update(Status{Step: 1002, Loss: 1, Images: 32064, Waiting: time.Second})
	check("narrow", "  50% ==>---  step 1002/2000  eta 1m41s")
	screen(t, out.String()[before:], 40)
	columns = 80
	c.advance(899 * time.Second)
	r.Update(Status{Step: 2000, Loss: 1, Images: 64000, Waiting: time.Second})
	check("all but the end", "  99% =============>-  step 2000/2000  loss 1.0000  64.0 img/s  data 0%  eta 0s")
	r.Note("saved")
	want = append(want, "saved")
	check("note at the end", "  99% =============>-  step 2000/2000  loss 1.0000  64.0 img/s  data 0%  eta 0s")
	r.Finish()
	want = append(want, " 100% ==========  step 2000/2000  loss 1.0000  64.0 img/s  data 0%  took 16m41s")
	check("end", "")
	r.Note("after the end")
	want = append(want, "after the end")
	check("note after the end", "")
}

// The bar moves with the images in the making, and stays where a run stops.
func TestBarStopped(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	yes := true
	r := New(&out, Options{Total: 2, Unit: "image", Now: c.now, Terminal: &yes})
	r.Update(Status{Loss: math.NaN()})
	c.advance(time.Second)
	r.Update(Status{Part: 0.5, Loss: math.NaN()})
	r.Finish()
	want := []string{"  25% =========>------------------------------  image 0/2  took 1s", ""}
	if got := screen(t, out.String(), 80); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpinner(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	yes := true
	r := New(&out, Options{Now: c.now, Terminal: &yes})
	for step := range 50 {
		c.advance(time.Second)
		r.Update(Status{Step: step, Loss: math.NaN()})
	}
	before := out.String()
	time.Sleep(150 * time.Millisecond) // a spinner that turns by itself would break into notes
	if out.String() != before {
		t.Error("the spinner is drawn without a report")
	}
	r.Finish()
	got := screen(t, out.String(), 80)
	if len(got) != 2 || !strings.HasSuffix(got[0], "  step 49  took 50s") || got[1] != "" {
		t.Errorf("got %q, want one line of step 49", got)
	}
}

// Whatever the width, no line is longer, and what remains is what matters most.
func TestNarrowTerminalsDoNotWrap(t *testing.T) {
	yes := true
	for columns := range 200 {
		var out bytes.Buffer
		c := newClock()
		r := New(&out, Options{Total: 800000, Now: c.now, Terminal: &yes, Width: func() int { return columns }})
		for step := 100000; step <= 500000; step += 100000 {
			c.advance(time.Hour)
			r.Update(Status{Step: step, Loss: 0.03125, Images: 100 * step, Waiting: time.Duration(step)})
		}
		line := screen(t, out.String(), columns)[0]
		for least, text := range map[int]string{9: "  62%", 27: "step 500000/800000", 38: "eta 3h00m", 51: "loss 0.0312"} {
			if columns >= least && !strings.Contains(line, text) {
				t.Errorf("%d columns: no %q in %q", columns, text, line)
			}
		}
	}
}

func TestSmoothedLoss(t *testing.T) {
	no := false
	r := New(io.Discard, Options{Total: 1, Terminal: &no})
	report := func(loss float64) { r.Update(Status{Step: 1, Loss: loss}) }
	report(3)
	if r.loss != 3 {
		t.Errorf("the first loss is %v, want 3", r.loss)
	}
	for range 20 {
		report(1)
	}
	if r.loss < 1 || r.loss > 1.01 {
		t.Errorf("after an early fall the loss shown is %v, want close to 1", r.loss)
	}
	for range 1000 {
		report(1)
	}
	report(math.NaN())
	report(math.Inf(1))
	report(2)
	if want := 1 + 1.0/lossMemory; math.Abs(r.loss-want) > 1e-9 {
		t.Errorf("one outlier late in the run moves the loss to %v, want %v", r.loss, want)
	}
}

func TestTexts(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Duration(0), "0s"},
		{Duration(59400 * time.Millisecond), "59s"},
		{Duration(59500 * time.Millisecond), "1m00s"},
		{Duration(3599 * time.Second), "59m59s"},
		{Duration(3600 * time.Second), "1h00m"},
		{Duration(26*time.Hour + 59*time.Minute), "1d02h"},
		{lossText(0.03125), "0.0312"},
		{lossText(0), "0.0000"},
		{lossText(0.00012), "1.20e-04"},
		{lossText(123456), "1.23e+05"},
		{rateText(1234.4), "1234"},
		{rateText(12.34), "12.3"},
		{rateText(1.234), "1.23"},
		{rateText(0.01234), "0.012"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	var out bytes.Buffer
	no := false
	r := New(&out, Options{Total: 100, Every: time.Hour, Terminal: &no})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 25 {
				r.Update(Status{Step: i, Loss: math.NaN()})
				r.Note(fmt.Sprintf("worker %d", worker))
			}
		})
	}
	group.Wait()
	if got := strings.Count(out.String(), "worker "); got != 100 {
		t.Errorf("%d notes, want 100", got)
	}
}
