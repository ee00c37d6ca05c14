package data

import (
	"fmt"
	"slices"
)

// Limits of the Config. maxSide bounds the memory of a batch, and of scaling a
// large photograph.
const (
	maxSide    = 2048
	maxWorkers = 256
)

// Config says which images to read and how to shape them.
type Config struct {
	Name       string  `mapstructure:"name" doc:"data set reader"`
	Path       string  `mapstructure:"path" doc:"file or folder the images come from; unused by shapes"`
	Width      int     `mapstructure:"width" doc:"width in pixels images are resized and centre-cropped to"`
	Height     int     `mapstructure:"height" doc:"height in pixels"`
	Channels   int     `mapstructure:"channels" doc:"1 (grey) or 3 (RGB)"`
	Flip       bool    `mapstructure:"flip" doc:"mirror training images left to right with probability 1/2"`
	Classes    bool    `mapstructure:"classes" doc:"folder: the first sub-folder names the class; zip: dataset.json does, or else the first sub-folder"`
	Holdout    float64 `mapstructure:"holdout" doc:"share of the images kept for eval where the data set has no test split"`
	Workers    int     `mapstructure:"workers" doc:"goroutines decoding images"`
	Prefetch   int     `mapstructure:"prefetch" doc:"batches decoded ahead"`
	MaxSkipped int     `mapstructure:"max_skipped" doc:"unreadable images skipped before the run stops"`
	Strict     bool    `mapstructure:"strict" doc:"stop at the first unreadable image"`
}

// Validate names the first key whose value cannot be used. It does not look at
// the disk.
func (c Config) Validate() error {
	switch {
	case !slices.Contains(Names(), c.Name):
		return fmt.Errorf("data.name %q: want one of %s", c.Name, list(Names()))
	case c.Width < 1 || c.Width > maxSide:
		return fmt.Errorf("data.width %d: want 1 to %d pixels", c.Width, maxSide)
	case c.Height < 1 || c.Height > maxSide:
		return fmt.Errorf("data.height %d: want 1 to %d pixels", c.Height, maxSide)
	case c.Channels != 1 && c.Channels != 3:
		return fmt.Errorf("data.channels %d: want 1 (grey) or 3 (RGB)", c.Channels)
	case !(c.Holdout >= 0 && c.Holdout < 1):
		return fmt.Errorf("data.holdout %g: want at least 0 and less than 1", c.Holdout)
	case c.Workers < 1 || c.Workers > maxWorkers:
		return fmt.Errorf("data.workers %d: want 1 to %d", c.Workers, maxWorkers)
	case c.Prefetch < 1 || c.Prefetch > maxWorkers:
		return fmt.Errorf("data.prefetch %d: want 1 to %d batches", c.Prefetch, maxWorkers)
	case c.MaxSkipped < 0:
		return fmt.Errorf("data.max_skipped %d: want 0 or more", c.MaxSkipped)
	case c.Name == "shapes" && c.Width != c.Height:
		return fmt.Errorf("data.height %d: shapes draws square images, so want data.width, which is %d", c.Height, c.Width)
	}
	return nil
}
