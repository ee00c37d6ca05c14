package train

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

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

var columns = []string{"step", "images", "loss", "grad_norm", "lr", "images_per_s", "data_wait"}

func (m Metrics) row() []string {
	float := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	return []string{
		strconv.Itoa(m.Step), strconv.Itoa(m.Images), float(m.Loss), float(m.GradNorm),
		float(m.LR), float(m.ImagesPerSecond), float(m.DataWait),
	}
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
	if h.jsonl, err = os.Create(dir.MetricsJSONL()); err != nil {
		return nil, fmt.Errorf("writing the metrics: %w", err)
	}
	if h.csv, err = os.Create(dir.MetricsCSV()); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the metrics: %w", err), h.close())
	}
	w := csv.NewWriter(h.csv)
	w.Write(columns)
	w.Flush()
	for _, m := range h.lines {
		if err := errors.Join(w.Error(), h.write(m)); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
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
	for s := bufio.NewScanner(f); s.Scan(); {
		var m Metrics
		if json.Unmarshal(s.Bytes(), &m) != nil {
			break
		}
		lines = append(lines, m)
	}
	return lines, nil
}

func (h *history) add(m Metrics) error {
	h.lines = append(h.lines, m)
	return h.write(m)
}

func (h *history) write(m Metrics) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	w := csv.NewWriter(h.csv)
	w.Write(m.row())
	w.Flush()
	_, err = h.jsonl.Write(append(line, '\n'))
	if err = errors.Join(err, w.Error()); err != nil {
		return fmt.Errorf("writing the metrics: %w", err)
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

func (h *history) close() error {
	return errors.Join(h.jsonl.Close(), closeFile(h.csv))
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
