//go:build gpu && !cpu

package cuda

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"syscall"
	"time"

	"ddpm/internal/graph"
	"ddpm/internal/graph/cuda/driver"
	"ddpm/internal/graph/cuda/kernels"
)

// cacheVariable names the folder of the cache in the environment.
const cacheVariable = "DDPM_CACHE"

// identity is what the findings about a GPU depend on.
type identity struct {
	GPU      string `json:"gpu"`
	Driver   string `json:"driver"`
	Kernels  string `json:"kernels"`  // digest of the PTX
	Revision string `json:"revision"` // of the program, whose code launches the kernels
}

// findings are what the guard and the tuner found out about a GPU: the content of its
// file in the cache.
type findings struct {
	identity
	Checks map[string]graph.KernelCheck `json:"checks"` // by kernel
	Tuned  map[string]string            `json:"tuned"`  // ways other than the default, by product
}

// keep adds verdicts of the guard.
func (f *findings) keep(verdicts map[string]graph.KernelCheck) { maps.Copy(f.Checks, verdicts) }

// cache is a GPU's file. Who cannot read it starts anew, and who cannot write it goes
// on without: its content can be found out again.
type cache struct {
	identity
	folder string
	err    error // why there is no folder
}

func cacheOf(gpu driver.DeviceInfo) (*cache, error) {
	version, err := driver.DriverVersion()
	if err != nil {
		return nil, err
	}
	c := &cache{identity: identity{GPU: gpu.Name, Driver: version, Kernels: kernels.Digest(), Revision: revision()}}
	if c.folder = os.Getenv(cacheVariable); c.folder == "" {
		c.folder, c.err = os.UserCacheDir()
		c.folder = filepath.Join(c.folder, "ddpm")
	}
	return c, nil
}

// revision is that of the sources. Where the build does not know it, or they were changed
// since, it is the program's own size and time.
func revision() string {
	settings := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	if commit := settings["vcs.revision"]; commit != "" && settings["vcs.modified"] == "false" {
		return commit
	}
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	program, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d bytes of %s", program.Size(), program.ModTime().UTC().Format(time.RFC3339Nano))
}

var noWord = regexp.MustCompile(`[^A-Za-z0-9]+`)

// path is the file: one for each identity, so that programs of two versions, or two
// drivers of machines that share a home, do not take turns.
func (c *cache) path() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", c.identity))
	return filepath.Join(c.folder, fmt.Sprintf("%s-%x.json", noWord.ReplaceAllString(c.GPU, "-"), sum[:8]))
}

// read returns what is known, which is nothing if the file is missing, damaged or
// another's.
func (c *cache) read() (known findings) {
	if c.err == nil {
		text, err := os.ReadFile(c.path())
		if err != nil || json.Unmarshal(text, &known) != nil || known.identity != c.identity {
			known = findings{}
		}
	}
	known.identity = c.identity
	if known.Checks == nil {
		known.Checks = map[string]graph.KernelCheck{}
	}
	if known.Tuned == nil {
		known.Tuned = map[string]string{}
	}
	return known
}

// update changes what is known. The file always holds all of one version of it; the
// lock keeps one process from losing what another adds in the same moment.
func (c *cache) update(change func(*findings)) error {
	if err := c.write(change); err != nil {
		return fmt.Errorf("what was found out about %s cannot be kept for the next start: %w; %s names another folder",
			c.GPU, err, cacheVariable)
	}
	return nil
}

func (c *cache) write(change func(*findings)) (err error) {
	if c.err != nil {
		return c.err
	}
	if err := os.MkdirAll(c.folder, 0o777); err != nil {
		return err
	}
	unlock := lock(c.folder)
	defer unlock()
	known := c.read()
	change(&known)
	text, err := json.MarshalIndent(known, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.folder, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = cmp.Or(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path())
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to tell
	}
	return err
}

// lockTime is how long a lock is waited for. Without it the file is still whole, so a
// file system that has no locks, or a process that sleeps with one, stops nobody.
const lockTime = time.Second

// lock takes the folder for this process and returns what gives it back.
func lock(folder string) (unlock func()) {
	f, err := os.Open(folder)
	if err != nil {
		return func() {}
	}
	for began := time.Now(); time.Since(began) < lockTime; time.Sleep(5 * time.Millisecond) {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
			break
		}
	}
	return func() { _ = f.Close() } // which ends the lock
}
