package samples

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"ddpm/internal/files"
	"ddpm/internal/safetensors"
)

const noiseName = "noise"

// ReadNoise reads the starting points x_T of n samples, or of as many as there
// are if n is 0, from the tensor `noise` [n,C,H,W] of a safetensors file, and
// returns them as [n,H,W,C].
func ReadNoise(path string, n, h, w, c int) ([]float32, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, fmt.Errorf("samples: noise: %w", err)
	}
	defer f.Close()
	info, ok := f.Tensor(noiseName)
	if n == 0 {
		n = 1
		if len(info.Shape) > 0 {
			n = max(1, info.Shape[0])
		}
	}
	want := []int{n, c, h, w}
	if !ok {
		return nil, fmt.Errorf("samples: noise: %s has no tensor %q of shape %v (n, channels, height, width); it has %s",
			path, noiseName, want, some(f.Names()))
	}
	if len(info.Shape) == 4 && info.Shape[0] != n && slices.Equal(info.Shape[1:], want[1:]) {
		return nil, fmt.Errorf("samples: noise: %s has the noise of %d images, and %d are asked for: leave -n out to draw all of them",
			path, info.Shape[0], n)
	}
	if !slices.Equal(info.Shape, want) {
		return nil, fmt.Errorf("samples: noise: %s: tensor %q has shape %v, want %v (n, channels, height, width)",
			path, noiseName, info.Shape, want)
	}
	nchw, err := f.ReadFloat32(noiseName)
	if err != nil {
		return nil, fmt.Errorf("samples: noise: %w", err)
	}
	for i, v := range nchw {
		if v64 := float64(v); math.IsNaN(v64) || math.IsInf(v64, 0) {
			return nil, fmt.Errorf("samples: noise: %s: tensor %q has %v at position %d, want finite numbers", path, noiseName, v, i)
		}
	}
	x := make([]float32, len(nchw))
	ToNHWC(x, nchw, n, h, w, c)
	return x, nil
}

// WriteNoise writes starting points [n,H,W,C] to a new file, as ReadNoise reads them.
func WriteNoise(path string, x []float32, h, w, c int) error {
	if err := Vacant(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("samples: cannot make the folder %s: %w", filepath.Dir(path), files.Cause(err))
	}
	n := len(x) / (h * w * c)
	nchw := make([]float32, len(x))
	ToNCHW(nchw, x, n, h, w, c)
	tensor := safetensors.Tensor{Name: noiseName, DType: safetensors.F32, Shape: []int{n, c, h, w}, Float32: nchw}
	return safetensors.WriteFile(path, nil, []safetensors.Tensor{tensor})
}

// some lists a few names.
func some(names []string) string {
	const few = 5
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > few:
		return fmt.Sprintf("%q and %d more", names[:few], len(names)-few)
	}
	return fmt.Sprintf("%q", names)
}
