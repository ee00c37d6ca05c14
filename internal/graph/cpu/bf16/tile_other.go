//go:build !amd64

package bf16

import "unsafe"

// Rows of a strip that may be split.
const wideRows, narrowRows = 14, 16

// Other processors have none of the instructions, so no engine is made that
// would come here.
const unsupported = "bf16: no such instructions on this processor"

func avx512(*Strip) { panic(unsupported) }

func packRows([]uint16, []float32, int, int, Panel) { panic(unsupported) }

func packColumns([]uint16, Matrix, Panel, int, int) { panic(unsupported) }

func convertVector([]uint16, int, []float32, int, int, int) { panic(unsupported) }

func transposeVector([]uint16, int, []float32, int, int, int) { panic(unsupported) }

func addBias(unsafe.Pointer, unsafe.Pointer, *Strip, int) { panic(unsupported) }

func multiply(*amxTile, int, int) { panic(unsupported) }
