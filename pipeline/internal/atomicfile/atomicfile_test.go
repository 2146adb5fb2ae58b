package atomicfile_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// only sees that a directory has one file, with a text and a mode.
func only(t *testing.T, file, text string, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != text {
		t.Errorf("it says %q, %v", got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != mode {
		t.Errorf("it is %v, %v", info, err)
	}
}

func TestAFileIsTheNewOneOrTheOldOne(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "report.json")
	if err := atomicfile.Write(file, []byte("first, and long"), 0o666); err != nil {
		t.Fatal(err)
	}
	only(t, file, "first, and long", 0o666)
	if err := atomicfile.Write(file, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	only(t, file, "second", 0o600)
	gone := errors.New("what was copied broke off")
	err := atomicfile.Replace(file, 0o644, func(f *os.File) error {
		_, err := io.WriteString(f, "half of the th")
		return errors.Join(err, gone)
	})
	if !errors.Is(err, gone) {
		t.Error(err)
	}
	only(t, file, "second", 0o600)
	if err := atomicfile.Write(filepath.Join(file, "below"), nil, 0o644); err == nil {
		t.Error("a file below a file was written")
	}
}

// As root, a rename would put a file in the place of the device.
func TestADeviceIsWrittenToAndStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "null")
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(link, []byte("for nobody"), 0o644); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != os.DevNull {
		t.Errorf("it is %q, %v", to, err)
	}
}
