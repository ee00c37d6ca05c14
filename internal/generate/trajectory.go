package generate

import (
	"image"

	"ddpm/internal/model"
	"ddpm/internal/picture"
)

// Trajectory keeps how the first images form: their prediction of x_0 at a few
// moments, evenly spaced over the steps, the first and the last included.
type Trajectory struct {
	Images, Moments int // at most so many

	images int
	t      []int
	x0     [][]byte // [images,H,W,C] each
}

// Add takes any moment and keeps those that belong to the trajectory.
func (r *Trajectory) Add(m Moment) error {
	if m.First != 0 || !r.chosen(m.Step-1, m.Steps) {
		return nil
	}
	x0, err := m.X0()
	if err != nil {
		return err
	}
	r.images = min(r.Images, m.Count)
	r.t = append(r.t, m.T)
	r.x0 = append(r.x0, picture.ToBytes(x0[:len(x0)/m.Count*r.images]))
	return nil
}

func (r *Trajectory) chosen(k, steps int) bool {
	if steps <= r.Moments {
		return true
	}
	last := r.Moments - 1
	// The i-th moment is step i (steps-1) / last, rounded.
	i := (k*last + (steps-1)/2) / (steps - 1)
	return k == (i*(steps-1)+last/2)/last
}

// Picture draws a row for each image and a column for each moment.
func (r *Trajectory) Picture(s model.Size) image.Image {
	return picture.Trajectory(r.x0, r.t, r.images, s.Width, s.Height, s.Channels, picture.GridOptions{})
}
