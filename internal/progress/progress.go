// Package progress shows how far a long run is: a bar on a terminal, a plain
// line from time to time in a log.
//
// Rates and the time left are averages over what this process did after its
// first step, which pays for set-up, and never count the steps of an earlier
// process that this one resumes.
package progress

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Options says what is counted and where it is shown; only Total is needed.
type Options struct {
	Total    int              // count at which the run is complete; 0 is unknown
	Start    int              // count reached by earlier processes
	Unit     string           // what is counted: "step" (default) or "image"
	Every    time.Duration    // between plain lines; default 10 s
	Now      func() time.Time // clock; default time.Now
	Terminal *bool            // default: whether the writer is a terminal that can redraw a line
	Width    func() int       // columns of the terminal; default: asks it before each redraw
}

// Status is one report of the run.
type Status struct {
	Step    int           // units complete, those before Start included
	Part    float64       // units in the making: 2 images a quarter denoised are 0.5
	Loss    float64       // loss of this step; NaN is none
	Images  int           // images processed by this process; ignored where images are the unit
	Waiting time.Duration // time this process has waited for data
}

// Reporter shows the progress of one run. Its methods may be called from any
// goroutine. Errors of the writer are ignored: a closed log does not end a run.
type Reporter struct {
	opt Options
	w   io.Writer

	mu       sync.Mutex
	began    time.Time // New
	base     moment    // end of the first step: rates count from here
	now      moment    // latest report
	loss     float64   // smoothed; NaN before the first
	losses   int       // reports that had a loss
	shown    time.Time // last line or redraw
	width    int       // characters of the bar now on the terminal
	finished bool
}

// moment is a report and when it came.
type moment struct {
	Status
	at time.Time // zero: none yet
}

const (
	redrawEvery = 100 * time.Millisecond
	minBar      = 10 // characters, brackets included; a narrower bar says nothing
	maxBar      = 40
	lossMemory  = 50 // reports the smoothed loss looks back, at most
)

// New starts the clock of a run whose progress is written to w.
func New(w io.Writer, opt Options) *Reporter {
	if opt.Unit == "" {
		opt.Unit = "step"
	}
	if opt.Every <= 0 {
		opt.Every = 10 * time.Second
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	file, _ := w.(*os.File)
	if opt.Terminal == nil {
		terminal := file != nil && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
		opt.Terminal = &terminal
	}
	if opt.Width == nil {
		opt.Width = func() int {
			if file != nil {
				if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
					return width
				}
			}
			return 80
		}
	}
	return &Reporter{opt: opt, w: w, began: opt.Now(), loss: math.NaN()}
}

// Update takes a report and shows it if the last one shown is old enough.
func (r *Reporter) Update(s Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.opt.Now()
	first := r.now.at.IsZero()
	r.now = moment{s, at}
	if r.base.at.IsZero() && r.now.done() > float64(r.opt.Start) {
		r.base = r.now
	}
	if !math.IsNaN(s.Loss) && !math.IsInf(s.Loss, 0) {
		if r.losses == 0 {
			r.loss = s.Loss
		}
		// The memory grows with the run, so that the early fall is not hidden.
		r.loss += (s.Loss - r.loss) / min(1+float64(r.losses)/10, lossMemory)
		r.losses++
	}
	every := r.opt.Every
	if *r.opt.Terminal {
		every = redrawEvery
	}
	if !r.finished && (first || at.Sub(r.shown) >= every) {
		r.shown = at
		r.show()
	}
}

// Note prints a line of its own, above the bar if there is one.
func (r *Reporter) Note(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintln(r.w, strings.TrimRight(line, "\n"))
	if *r.opt.Terminal && !r.finished && !r.now.at.IsZero() {
		r.show()
	}
}

// Finish prints the last line, with the time the run took, and ends the bar.
// Later reports are not shown. It prints nothing if there was no report.
func (r *Reporter) Finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	r.finished = true
	if r.now.at.IsZero() {
		return
	}
	r.show()
	if *r.opt.Terminal {
		fmt.Fprintln(r.w)
		r.width = 0
	}
}

// show prints the latest report: over the bar, or as a line of a log.
func (r *Reporter) show() {
	if !*r.opt.Terminal {
		fmt.Fprintln(r.w, r.line(math.MaxInt))
		return
	}
	// A character in the last column makes some terminals wrap.
	limit := max(0, r.opt.Width()-1)
	line := r.line(limit)
	fmt.Fprintf(r.w, "\r%s%s", line, strings.Repeat(" ", max(0, min(r.width, limit)-len(line))))
	r.width = len(line)
}

// clear wipes the bar. Spaces do it on every terminal; escape sequences do not.
func (r *Reporter) clear() {
	if r.width > 0 {
		fmt.Fprintf(r.w, "\r%s\r", strings.Repeat(" ", min(r.width, max(0, r.opt.Width()-1))))
		r.width = 0
	}
}
