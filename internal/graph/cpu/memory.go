package cpu

import (
	"os"
	"strconv"
	"strings"
)

// Memory is the main memory this process may have, in bytes; 0 is unknown. It
// implements graph.Sized.
func (b *Backend) Memory() int64 {
	total := physicalMemory()
	// A container may have less than the machine.
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}
