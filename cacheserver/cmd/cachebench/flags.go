package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

// size is a flag for a number of bytes, such as 64MiB or 1GiB.
type size int64

func (s *size) String() string { return bytesize.Text(int64(*s)) }

func (s *size) Set(text string) error {
	n, err := bytesize.Parse(text)
	if err != nil || n == 0 {
		return errors.New("want a number of bytes such as 64MiB or 1GiB")
	}
	*s = size(n)
	return nil
}

func (*size) Type() string { return "size" }

// common are the flags of every benchmark.
type common struct {
	rounds int
	temp   string
}

func (c *common) flags(f *pflag.FlagSet) {
	f.IntVar(&c.rounds, "rounds", 5, "how often each side of a comparison runs")
	f.StringVar(&c.temp, "temp", os.TempDir(), "`directory` for what the benchmark writes, removed at its end")
}

func (c *common) check() error {
	if c.rounds < 1 {
		return usageError{errors.New("--rounds must be at least 1")}
	}
	return nil
}

// inTemp runs a benchmark in a directory of its own, which does not outlive it.
func (c *common) inTemp(work func(dir string) error) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.temp, "cachebench-")
	if err != nil {
		return fmt.Errorf("making a directory for the benchmark: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return work(dir)
}

func noArguments(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}
