//go:build !unix

package runs

// Lock does nothing where the system has no advisory locks.
func (d Dir) Lock() (unlock func(), err error) { return func() {}, nil }
