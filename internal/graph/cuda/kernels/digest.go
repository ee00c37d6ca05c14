package kernels

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"sync"
)

// Digest is a fingerprint of all PTX: what was found out about the kernels on a GPU
// holds as long as it stays the same. It takes some milliseconds the first time.
var Digest = sync.OnceValue(func() string {
	h := sha256.New()
	err := fs.WalkDir(ptx, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := ptx.ReadFile(path)
		h.Write([]byte(path))
		h.Write([]byte{0})
		h.Write(text)
		return err
	})
	if err != nil {
		panic("kernels: the embedded files cannot be read: " + err.Error())
	}
	return hex.EncodeToString(h.Sum(nil))
})
