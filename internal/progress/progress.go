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

	"github.com/schollz/progressbar/v3"
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
	bar *progressbar.ProgressBar // nil: plain lines

	mu       sync.Mutex
	began    time.Time // New
	base     moment    // end of the first step: rates count from here
	now      moment    // latest report
	loss     float64   // smoothed; NaN before the first
	losses   int       // reports that had a loss
	shown    time.Time // last line or redraw
	finished bool
}

// moment is a report and when it came.
type moment struct {
	Status
	at time.Time // zero: none yet
}

const (
	redrawEvery = 100 * time.Millisecond
	lossMemory  = 50   // reports the smoothed loss looks back, at most
	maxBar      = 40   // columns
	fraction    = 1000 // the bar counts in thousandths of a unit, for those in the making

	// frame is the columns the library takes beside the bar and our text.
	frame = len(" 100% " + "  " + " ")
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
	terminal := file != nil && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
	if opt.Terminal != nil {
		terminal = *opt.Terminal
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
	r := &Reporter{opt: opt, w: w, began: opt.Now(), loss: math.NaN()}
	if terminal {
		r.bar = newBar(w, opt.Total)
	}
	return r
}

// newBar sets up a bar, or a spinner if the total is unknown. It has no rate
// and no time left of its own, and is drawn only when told to.
func newBar(w io.Writer, total int) *progressbar.ProgressBar {
	full := int64(fraction * total)
	if total <= 0 {
		full = -1
	}
	return progressbar.NewOptions64(full,
		progressbar.OptionSetWriter(w),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: "-"}),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetSpinnerChangeInterval(0),
	)
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
	if r.bar != nil {
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
	drawn := r.bar != nil && !r.finished && !r.now.at.IsZero()
	if drawn {
		r.bar.Clear()
	}
	fmt.Fprintln(r.w, strings.TrimRight(line, "\n"))
	if drawn {
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
	if r.bar != nil {
		fmt.Fprintln(r.w)
	}
}

// show prints the latest report: as a line of a log, or over the bar.
func (r *Reporter) show() {
	if r.bar == nil {
		fmt.Fprintln(r.w, r.line(math.MaxInt))
		return
	}
	room := r.opt.Width() - frame
	if room < 0 {
		return
	}
	line := r.line(room)
	progressbar.OptionSetWidth(min(maxBar, room-len(line)))(r.bar) // the text goes first
	r.bar.Describe(line)
	if r.opt.Total > 0 {
		full := int64(fraction * r.opt.Total)
		if !r.finished { // a bar once full takes no new text
			full--
		}
		r.bar.Set64(min(full, int64(fraction*r.now.done())))
	}
}
