package graph

import (
	"cmp"
	"slices"
)

// DeviceInfo describes a device that networks can run on.
type DeviceInfo struct {
	Device     string `json:"device"` // its name for --device: cuda:0
	Name       string `json:"name"`
	Memory     int64  `json:"memory_bytes"` // 0 is unknown
	Free       int64  `json:"free_bytes"`   // of it; 0 is unknown
	Capability string `json:"capability,omitempty"`
	Driver     string `json:"driver,omitempty"`
	Kernels    string `json:"kernels"` // the set of kernels that would run
}

// DeviceList is the devices of one kind, or why there is none.
type DeviceList struct {
	Kind    string
	Devices []DeviceInfo
	Err     error
}

var listers = map[string]func() ([]DeviceInfo, error){}

// RegisterLister makes the devices of a kind known. It is called from init.
func RegisterLister(kind string, list func() ([]DeviceInfo, error)) { listers[kind] = list }

// List finds the devices of this machine, by kind.
func List() []DeviceList {
	var all []DeviceList
	for kind, list := range listers {
		devices, err := list()
		all = append(all, DeviceList{kind, devices, err})
	}
	slices.SortFunc(all, func(a, b DeviceList) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}
