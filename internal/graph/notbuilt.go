package graph

import "fmt"

// NotBuilt is the error of opening a device that this build of the program
// leaves out.
type NotBuilt struct {
	Device string // for people: CUDA
	Advice string // what to do
}

func (e *NotBuilt) Error() string {
	return fmt.Sprintf("this program was built without %s: %s", e.Device, e.Advice)
}
