package main

import (
	"context"
	"io"
	"sync"

	"github.com/spf13/cobra"
)

// screen is standard error for what is said beside a run's own reporter: a signal's
// echo, the log of the server in this process. While a reporter moves the cursor,
// it goes through that, or it would be drawn over, and what was drawn would stay.
type screen struct {
	mu  sync.Mutex
	out io.Writer
	by  io.Writer // instead of out, or nil
}

type screenKey struct{}

// screenOf returns the screen of a command's run.
func screenOf(cmd *cobra.Command) *screen {
	if s, ok := cmd.Context().Value(screenKey{}).(*screen); ok {
		return s
	}
	return &screen{out: cmd.ErrOrStderr()}
}

func (s *screen) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, screenKey{}, s)
}

// hold lets all go through a writer until it is nil.
func (s *screen) hold(by io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = by
}

// Write implements io.Writer.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by != nil {
		return s.by.Write(b)
	}
	return s.out.Write(b)
}
