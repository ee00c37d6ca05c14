// Command ddpm trains diffusion models, draws from them and measures them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"ddpm/internal/train"
)

func main() { os.Exit(run()) }

// run is the program; its result is the exit code.
func run() (code int) {
	defer func() {
		if r := recover(); r != nil {
			code = fail(crashed(r, debug.Stack()))
		}
	}()
	ctx := untilSignal()
	out := &stickyWriter{w: os.Stdout}
	root := newRoot()
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err // what was printed is part of what was asked for
	}
	if err == nil {
		return 0
	}
	// Like other programs that a signal ends: 130 for Ctrl-C.
	s, signalled := context.Cause(ctx).(stopSignal)
	if !signalled || !s.stopped(err) {
		return fail(err)
	}
	if errors.Is(err, context.Canceled) { // says nothing that s does not say better
		err = s
	}
	fail(err)
	return 128 + int(s.Signal)
}

// stickyWriter remembers the first error and writes nothing after it, so that
// what prints need not look.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	var n int
	n, s.err = s.w.Write(p)
	return n, s.err
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "ddpm: %v\n", err)
	return 1
}

// stopSignal is the cause of a context that a signal ended.
type stopSignal struct{ syscall.Signal }

func (s stopSignal) Error() string { return "interrupted" }

// stopped reports whether err says that a command ended as the signal asked, and
// not that something went wrong on the way.
func (s stopSignal) stopped(err error) bool {
	var safe *train.Stopped
	return errors.As(err, &safe) || errors.Is(err, context.Canceled) || errors.Is(err, s)
}

// untilSignal is a context that Ctrl-C, SIGTERM or a closed terminal ends. A second one kills the
// program, as it would without this.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		signal.Stop(signals)
		cancel(stopSignal{s.(syscall.Signal)})
	}()
	return ctx
}

// crashed describes a mistake in the program itself. What a report needs goes to
// a file.
func crashed(what any, stack []byte) error {
	err := fmt.Errorf("a mistake in the program itself, please report it: %v", what)
	f, ferr := os.CreateTemp("", "ddpm-crash-*.txt")
	if ferr != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(f, "%v\n%q\n%v\n\n%s", describeBuild(), os.Args, what, stack)
	return fmt.Errorf("%w, with the file %s", err, f.Name())
}
