package data

import (
	"strconv"
	"sync"

	"ddpm/internal/data/shapes"
)

func init() { Register("shapes", openShapes) }

// synthetic is the endless set of package shapes; image i of the split is image
// i of the set with that seed.
type synthetic struct {
	info   Info
	seed   uint64
	values sync.Pool // *[]float64 of an RGB image
}

// The seeds of the two splits. They do not follow the seed of a run: another seed
// is another run on the same data.
const (
	shapesTrainSeed = 0
	shapesTestSeed  = 1
)

// openShapes draws a split. The data set proper is 16 x 16 RGB; other squares
// show the same scenes.
func openShapes(cfg Config, split Split) (Dataset, error) {
	seed := uint64(shapesTrainSeed)
	if split == Test {
		seed = shapesTestSeed
	}
	s := &synthetic{
		info: Info{Name: "shapes", Width: cfg.Width, Height: cfg.Height, Channels: cfg.Channels, Classes: shapes.Classes[:]},
		seed: seed,
	}
	s.values.New = func() any {
		values := make([]float64, cfg.Width*cfg.Height*3)
		return &values
	}
	return s, nil
}

func (s *synthetic) Info() Info { return s.info }

func (s *synthetic) Read(index int, dst []byte) (int, error) {
	if err := checkRead(s.info, index, dst); err != nil {
		return 0, err
	}
	p := shapes.Draw(s.seed, uint64(index))
	values := s.values.Get().(*[]float64)
	defer s.values.Put(values)
	v := *values
	shapes.Render(p, s.info.Width, v)
	if s.info.Channels == 3 {
		shapes.Quantise(v, dst)
		return p.Class, nil
	}
	var rgb [3]byte
	for i := range dst {
		shapes.Quantise(v[3*i:3*i+3], rgb[:])
		dst[i] = luma(rgb[0], rgb[1], rgb[2])
	}
	return p.Class, nil
}

func (s *synthetic) Source(index int) string { return "shapes image " + strconv.Itoa(index) }

func (s *synthetic) Close() error { return nil }
