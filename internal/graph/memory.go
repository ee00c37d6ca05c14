package graph

import "fmt"

// Sized is a Backend that knows how much memory its device has.
type Sized interface {
	// Memory is in bytes; 0 is unknown.
	Memory() int64
}

// CheckMemory compares what is planned for a device, in bytes, with what it has.
func CheckMemory(b Backend, bytes int64) error {
	s, ok := b.(Sized)
	if !ok {
		return nil
	}
	if has := s.Memory(); has > 0 && bytes > has {
		return fmt.Errorf("this needs %s of memory and %s has %s", Bytes(bytes), b.Name(), Bytes(has))
	}
	return nil
}

// Bytes writes a number of bytes for people: 1.5 GB.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= 999.5 && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.3g %cB", value, "kMGTP"[prefix])
}
