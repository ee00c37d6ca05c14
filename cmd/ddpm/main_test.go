package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"ddpm/internal/train"
)

// A mistake in the program is one sentence, and what a report needs is in a file.
func TestCrashed(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	err := crashed("index out of range", []byte("goroutine 1 [running]"))
	text, file, found := strings.Cut(err.Error(), ", with the file ")
	if !found || text != "a mistake in the program itself, please report it: index out of range" {
		t.Fatal(err)
	}
	defer os.Remove(file)
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ddpm ", "index out of range", "goroutine 1 [running]"} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

func TestStoppedTellsTheSignalFromAFailure(t *testing.T) {
	s := stopSignal{syscall.SIGTERM}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("network at t=3: %w", context.Canceled), true},
		{fmt.Errorf("data: %w", s), true},
		{fmt.Errorf("%w: checkpoint written", &train.Stopped{Step: 3, Steps: 9}), true},
		{errors.New("disk full"), false},
	} {
		if got := s.stopped(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}

func TestFlops(t *testing.T) {
	for n, want := range map[int64]string{0: "0 MFLOP", 69_700_000: "69.7 MFLOP", 3_340_000_000: "3.34 GFLOP", 4_780_000_000_000: "4.78 TFLOP", 999_600_000: "1 GFLOP", 1 << 62: "4.61e+03 PFLOP"} {
		if got := flops(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
