package main

import (
	"strings"
	"testing"

	"ddpm/internal/trained"
)

func TestClassesOf(t *testing.T) {
	m := &trained.Model{Classes: []string{"cat", "1", "0"}}
	m.Config.Model.Classes = 3
	for text, want := range map[string][2]any{ // the class of image 7, and in a name
		"": {nil, ""}, "all": {nil, ""}, "none": {-1, "-classnone"},
		"cat": {0, "-class0"}, "2": {2, "-class2"}, "1": {1, "-class1"},
		"0": {2, "-class2"}, // a name comes before a number
	} {
		c, err := classesOf(text, m)
		if err != nil {
			t.Fatal(err)
		}
		class, single := c.single()
		if single != (want[0] != nil) || single && (class != want[0] || c.of(7) != want[0]) || c.String() != want[1] {
			t.Errorf("--class %q: class %d, alone: %t, %q in a name, want %v", text, class, single, c, want)
		}
	}
	for _, text := range []string{"3", "-1", "dog"} {
		if _, err := classesOf(text, m); err == nil || !strings.Contains(err.Error(), "want 0 to 2 (cat, 1, 0), all, or none") {
			t.Errorf("--class %s: error %v", text, err)
		}
	}
	m.Config.Model.Classes = 0
	if c, err := classesOf("", m); err != nil || c.grid(9).Columns != 0 {
		t.Errorf("no classes: %+v, %v", c, err)
	}
	if class, single := (classes{}).single(); class != -1 || !single {
		t.Errorf("no classes: class %d, alone: %t", class, single)
	}
}

// A class is a column of the grid, if there are not too many and more than a row.
func TestClassesInColumns(t *testing.T) {
	names := []string{"a", "b", "c"}
	one := func(int) int { return 1 }
	for _, c := range []struct {
		classes classes
		n, want int
	}{
		{classes{known: 3, names: names}, 8, 3},
		{classes{known: 3, names: names}, 3, 0},
		{classes{known: 3, of: one}, 8, 0},
		{classes{known: 1000}, 2000, 0},
		{classes{}, 8, 0},
	} {
		got := c.classes.grid(c.n)
		if got.Columns != c.want || c.want > 0 && len(got.ColumnLabels) != 3 {
			t.Errorf("%d images, %d classes: %+v, want %d columns", c.n, c.classes.known, got, c.want)
		}
	}
}
