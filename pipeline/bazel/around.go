package bazel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
)

// Around is the cache that is put around a command of Bazel.
type Around struct {
	// Caches are URLs, of which the first is used that answers as a cache for Bazel.
	// Without any, a server starts in this process, with its data in Data.
	Caches      []string
	Data        string
	Credentials credential.Finder
	Dir         string   // that the command will run in; empty for the working directory
	Version     Version  // the zero one: what the command says of itself
	Download    Download // empty: TopLevel
	Log         *slog.Logger
}

// Supply gives a command line the flags for the cache, as the function Supply does.
// What is wrong with a cache is told, and keeps no command from running: it then
// uses none, whatever the workspace's .bazelrc says. end is to be called when the
// command has ended.
func (a Around) Supply(ctx context.Context, args []string, tell func(error)) (supplied []string, end func()) {
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	flags, stop, err := a.flags(ctx, args[0], tell)
	if err != nil {
		tell(fmt.Errorf("%w; %s runs without the cache", err, filepath.Base(args[0])))
		flags = Off()
	}
	finish := func(remove func() error) func() {
		return func() {
			if err := errors.Join(remove(), stop()); err != nil {
				tell(err)
			}
		}
	}
	supplied, remove, err := Supply(args, flags)
	if err != nil {
		tell(err)
		return args, finish(func() error { return nil })
	}
	return supplied, finish(remove)
}

// flags returns the flags with which a command uses the cache. stop ends what was
// started for it, and is to be called in any case.
func (a Around) flags(ctx context.Context, command string, tell func(error)) (flags []string, stop func() error, err error) {
	stop = func() error { return nil }
	s := Settings{Version: a.Version, Download: a.Download}
	if s.Download == "" {
		s.Download = TopLevel
	}
	if len(a.Caches) == 0 {
		server, err := embedded.Start(ctx, cacheserver.Config{Data: a.Data, Log: a.Log})
		if err != nil {
			return nil, stop, fmt.Errorf("the cache server in this process does not start: %w", err)
		}
		stop = server.Close
		s.Cache, err = Probe(ctx, server.URL, "") // tokens are for others
		if err != nil {
			return nil, stop, err
		}
	} else if err := a.first(ctx, &s, tell); err != nil {
		return nil, stop, err
	}
	if s.Version == (Version{}) {
		s.Version, _ = Detect(ctx, a.Dir, command) // else the oldest that is known
	}
	return s.Flags(), stop, nil
}

// first finds the first cache that answers.
func (a Around) first(ctx context.Context, s *Settings, tell func(error)) error {
	var faults []error
	for _, url := range a.Caches {
		token, err := a.Credentials.For(ctx, url)
		if err == nil {
			s.Cache, err = Probe(ctx, url, token)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s.Token = token
		if len(faults) > 0 {
			tell(errors.Join(faults...))
		}
		return nil
	}
	return errors.Join(faults...)
}
