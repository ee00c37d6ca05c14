package train

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"ddpm/internal/files"
	"ddpm/internal/picture"
	"ddpm/internal/runs"
)

// Metrics is one line of metrics.jsonl.
type Metrics struct {
	Step     int     `json:"step"`
	Images   int     `json:"images"`
	Loss     float64 `json:"loss"`      // mean since the line before
	GradNorm float64 `json:"grad_norm"` // before clipping
	LR       float64 `json:"lr"`
	// Speed of this process since the line before.
	ImagesPerSecond float64 `json:"images_per_s"`
	DataWait        float64 `json:"data_wait"` // share of the time spent waiting for images
}

// header names the columns of metrics.csv.
const header = "step,images,loss,grad_norm,lr,images_per_s,data_wait\n"

func (m Metrics) csv() []byte {
	line := strconv.AppendInt(nil, int64(m.Step), 10)
	line = strconv.AppendInt(append(line, ','), int64(m.Images), 10)
	for _, x := range []float64{m.Loss, m.GradNorm, m.LR, m.ImagesPerSecond, m.DataWait} {
		line = strconv.AppendFloat(append(line, ','), x, 'g', -1, 64)
	}
	return append(line, '\n')
}

func (m Metrics) json() []byte {
	line, _ := json.Marshal(m) // fails only for a number that is not finite
	return append(line, '\n')
}

// history is the metrics of the run so far, in memory and in its two files.
type history struct {
	dir   runs.Dir
	lines []Metrics
	jsonl *os.File
	csv   *os.File
}

// openHistory reads the lines up to step and drops later ones, which a run that
// was cut off may have written after its last checkpoint.
func openHistory(dir runs.Dir, step int) (*history, error) {
	h := &history{dir: dir}
	lines, err := ReadMetrics(dir)
	if err != nil {
		return nil, err
	}
	for _, m := range lines {
		if m.Step <= step {
			h.lines = append(h.lines, m)
		}
	}
	if h.jsonl, err = h.rewrite(dir.MetricsJSONL(), nil, Metrics.json); err != nil {
		return nil, err
	}
	if h.csv, err = h.rewrite(dir.MetricsCSV(), []byte(header), Metrics.csv); err != nil {
		return nil, errors.Join(err, h.jsonl.Close())
	}
	return h, nil
}

// rewrite replaces a file, as a whole, by the lines so far and opens its end.
func (h *history) rewrite(path string, header []byte, line func(Metrics) []byte) (*os.File, error) {
	err := files.Write(path, func(w io.Writer) error {
		_, err := w.Write(header)
		for _, m := range h.lines {
			if err == nil {
				_, err = w.Write(line(m))
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot write the metrics: %w", err)
	}
	return f, nil
}

// ReadMetrics reads the metrics of a run; a run without any has none. A last
// line that a crash cut short is left out.
func ReadMetrics(dir runs.Dir) ([]Metrics, error) {
	f, err := os.Open(dir.MetricsJSONL())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the metrics: %w", err)
	}
	defer f.Close()
	var lines []Metrics
	var damaged error
	s := bufio.NewScanner(f)
	for number := 1; s.Scan(); number++ {
		if damaged != nil { // and not the last line
			return nil, damaged
		}
		var m Metrics
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			damaged = fmt.Errorf("%s:%d: not a line of metrics: %w: repair or remove the file", dir.MetricsJSONL(), number, err)
			continue
		}
		lines = append(lines, m)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading the metrics: %w", err)
	}
	return lines, nil
}

// add writes a line to both files.
func (h *history) add(m Metrics) error {
	h.lines = append(h.lines, m)
	_, err := h.jsonl.Write(m.json())
	if err == nil {
		_, err = h.csv.Write(m.csv())
	}
	if err != nil {
		return fmt.Errorf("cannot write the metrics: %w", err)
	}
	return nil
}

// plot draws the loss and the learning rate of the run so far.
func (h *history) plot(title string) error {
	if len(h.lines) == 0 {
		return nil
	}
	series := picture.LossSeries{Title: title}
	for _, m := range h.lines {
		series.Step = append(series.Step, m.Step)
		series.Loss = append(series.Loss, m.Loss)
		series.LR = append(series.LR, m.LR)
	}
	return picture.LossCurve(h.dir.LossPlot(), series)
}

func (h *history) close() error { return errors.Join(h.jsonl.Close(), h.csv.Close()) }
