package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ddpm/internal/generate"
	"ddpm/internal/picture"
	"ddpm/internal/trained"
)

// classes are those of the images of one call.
type classes struct {
	// of gives the class of an image, negative for none; nil is all in turn, if the
	// model knows any.
	of    func(image int) int
	known int // to the model
	names []string
	asked string // none, or a number; "" for all
}

// classesOf reads --class.
func classesOf(text string, m *trained.Model) (classes, error) {
	c := classes{known: m.Config.Model.Classes, names: m.Classes}
	one := func(class int, asked string) (classes, error) {
		c.of, c.asked = func(int) int { return class }, asked
		return c, nil
	}
	switch {
	case text == "":
		return c, nil
	case c.known == 0:
		return c, fmt.Errorf("--class %s: the model knows no classes", text)
	case text == "all":
		return c, nil
	case text == "none":
		return one(-1, text)
	}
	if i := slices.Index(c.names, text); i >= 0 {
		return one(i, strconv.Itoa(i))
	}
	if i, err := strconv.Atoi(text); err == nil && i >= 0 && i < c.known {
		return one(i, strconv.Itoa(i))
	}
	names := ""
	if few := 20; len(c.names) > 0 && len(c.names) <= few {
		names = " (" + strings.Join(c.names, ", ") + ")"
	}
	return c, fmt.Errorf("--class %s: want 0 to %d%s, all, or none", text, c.known-1, names)
}

// single is the class of all images, negative for none; ok is false if they have several.
func (c classes) single() (class int, ok bool) {
	if c.known == 0 {
		return -1, true
	}
	if c.of == nil {
		return 0, false
	}
	return c.of(0), true
}

// String is the classes in the name of a file.
func (c classes) String() string {
	if c.asked == "" {
		return ""
	}
	return "-class" + c.asked
}

// grid arranges n images, in a column for each class if they are of all in turn.
func (c classes) grid(n int) picture.GridOptions {
	const most = 32 // columns
	if c.known == 0 || c.of != nil || c.known > most || n <= c.known {
		return picture.GridOptions{}
	}
	return picture.GridOptions{Columns: c.known, ColumnLabels: c.names}
}

// guidanceFlags are those that say how there is guidance, if there is any.
var guidanceFlags = []string{"guidance-from", "guidance-to", "guidance-rescale"}

// fitGuidance checks the flags of guidance against the model and the class.
func (s *sampleCommand) fitGuidance(m *trained.Model) error {
	for _, flag := range append([]string{"guidance"}, guidanceFlags...) {
		if s.given(flag) && m.Config.Model.Classes == 0 {
			return fmt.Errorf("--%s: the model knows no classes, which guidance is about", flag)
		}
	}
	guided := generate.Guided(m.Sampling(), m.Config.Model)
	if guided && s.class.asked == "none" {
		if s.given("guidance") {
			return fmt.Errorf("--guidance %g: guidance leads to a class, and --class is none", m.Config.Sample.Guidance)
		}
		m.Config.Sample.Guidance = 1
		guided = false
	}
	for _, flag := range guidanceFlags {
		if s.given(flag) && !guided {
			return fmt.Errorf("--%s: there is no guidance: want --guidance, such as 3", flag)
		}
	}
	return nil
}
