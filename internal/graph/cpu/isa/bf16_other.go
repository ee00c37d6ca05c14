//go:build !amd64

package isa

func hasAVX512BF16() bool { return false }

func hasAMXBF16() bool { return false }
