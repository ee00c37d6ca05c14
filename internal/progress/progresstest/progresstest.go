// Package progresstest watches the progress of runs in tests.
package progresstest

import (
	"fmt"
	"strings"
	"time"

	"ddpm/internal/progress"
)

// watcher is told each line of progress.
type watcher func(line string)

func (w watcher) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// Lines reports a line to watch after every step.
func Lines(watch func(line string)) *progress.Reporter {
	terminal := false
	return progress.New(watcher(watch), progress.Options{Every: time.Nanosecond, Terminal: &terminal})
}

// At calls do when a step is reported.
func At(step int, do func()) *progress.Reporter {
	return Lines(func(line string) {
		for _, end := range []string{" ", "/"} {
			if strings.HasPrefix(line, fmt.Sprint("step ", step, end)) {
				do()
			}
		}
	})
}
