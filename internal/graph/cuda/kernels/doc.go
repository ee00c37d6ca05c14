// Package kernels holds the CUDA kernels: their sources, what clang made of them,
// and Go twins of the structs they take.
//
//	*.cu               kernels, one concern a file, for the set sm_80
//	sm_90a/*.cu        kernels for the set sm_90a: Hopper's copies and products
//	*.h                what they share
//	gen/               the generator: make kernels
//	params.go          generated: parameter structs, table of kernels
//	ptx/SET/NAME.ptx   generated: NAME.cu for the architecture set
//	embed.go           looks both up
//
// A kernel takes one struct by value, whose name ends in Params; structs that its
// pointers lead to have twins too. Pointers are of type Ptr, and names turn from
// snake_case to PascalCase: field x_bf16 is XBf16. The generated files are checked in,
// so building needs no CUDA compiler; the driver compiles PTX for the device it finds.
package kernels
