package bazel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Runs says whether a command line starts Bazel, or what starts it.
func Runs(args []string) bool {
	if len(args) == 0 {
		return false
	}
	return slices.Contains([]string{"bazel", "bazelisk"}, filepath.Base(args[0]))
}

// ErrNoRC is a command line that forbids what Supply would add.
var ErrNoRC = errors.New("--ignore_all_rc_files is among bazel's arguments, and what it is to use comes from such a file")

// Supply gives a command line of Bazel flags for its commands that build, without a
// change to any file of the workspace. They come from a file of their own, which only the caller can
// read: flags on the command line could be read by every user of the machine. They
// count for more than the workspace's .bazelrc, and for less than what the command
// line says itself. remove deletes the file; Bazel reads it when it starts only.
func Supply(args, flags []string) (supplied []string, remove func() error, err error) {
	if slices.Contains(startup(args), "--ignore_all_rc_files") {
		return nil, nil, ErrNoRC
	}
	f, err := os.CreateTemp("", "flywheel-*.bazelrc") // mode 0600
	if err != nil {
		return nil, nil, fmt.Errorf("writing what bazel is to use: %w", err)
	}
	remove = func() error { return os.Remove(f.Name()) }
	_, err = f.WriteString(RC(flags))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("writing what bazel is to use: %w", err), remove())
	}
	return slices.Insert(slices.Clone(args), 1, "--bazelrc="+f.Name()), remove, nil
}

// startup returns the options that stand before Bazel's command. The value of one
// that is an argument of its own ends them early, which loses nothing that Supply
// looks for but where both are given.
func startup(args []string) []string {
	for i, a := range args[1:] {
		if !strings.HasPrefix(a, "-") {
			return args[1 : 1+i]
		}
	}
	return args[1:]
}
