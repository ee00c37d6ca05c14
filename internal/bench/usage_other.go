//go:build !unix

package bench

import "time"

type usage struct{}

func (usage) known() bool { return false }

func (usage) time() time.Time { return time.Time{} }
