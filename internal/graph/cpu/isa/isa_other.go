//go:build !amd64

package isa

func (s Set) supported() bool { return s == Generic }
