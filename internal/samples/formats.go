package samples

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"ddpm/internal/safetensors"
)

const tensorName = "samples"

// writeNPY writes version 1.0 of NumPy's format: a magic string, the length of
// the header, the header (the text of a Python dict, padded so that the data
// begin at a multiple of 64 bytes), the data.
func writeNPY(w io.Writer, s size, body io.Reader) error {
	const fixed, alignment = 10, 64
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d, %d, %d), }", s.n, s.c, s.h, s.w)
	padding := alignment - (fixed+len(header)+1)%alignment
	header += strings.Repeat(" ", padding%alignment) + "\n"
	start := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	if _, err := w.Write(append(start, header...)); err != nil {
		return err
	}
	_, err := io.Copy(w, body)
	return err
}

// writeNPZ writes a zip archive of one npy file. It is stored as it is: noise
// and samples of a network hardly compress.
func writeNPZ(w io.Writer, s size, body io.Reader) error {
	archive := zip.NewWriter(w)
	member, err := archive.CreateHeader(&zip.FileHeader{Name: tensorName + ".npy", Method: zip.Store})
	if err != nil {
		return err
	}
	if err := writeNPY(member, s, body); err != nil {
		return err
	}
	return archive.Close()
}

func writeSafetensors(w io.Writer, s size, body io.Reader) error {
	return safetensors.Write(w, nil, []safetensors.Tensor{{
		Name:  tensorName,
		DType: safetensors.F32,
		Shape: []int{s.n, s.c, s.h, s.w},
		Stream: func(w io.Writer) error {
			_, err := io.Copy(w, body)
			return err
		},
	}})
}
