package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// jobs is how many paths are pushed at a time, as the pipeline does it.
const jobs = 4

// withServer runs work beside a server in this process, on a free port.
func withServer(ctx context.Context, config cacheserver.Config, work func(s *cacheserver.Server, url string) error) (err error) {
	s, err := cacheserver.Open(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return s.Serve(serving, l) })
	worked := work(s, "http://"+l.Addr().String())
	stop()
	return errors.Join(worked, g.Wait())
}

// pushAll pushes the NARs, each as a path, and returns when all are committed.
func pushAll(ctx context.Context, c *push.Client, archives []archive) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, a := range archives {
		g.Go(func() error {
			chunks, err := c.Upload(ctx, a.size, chunker.DefaultAverage, func(w io.Writer) error { return a.copyTo(w) })
			if err == nil {
				_, err = c.Commit(ctx, &narinfo.NarInfo{StorePath: a.storePath(), NarHash: a.hash, NarSize: a.size}, chunks)
			}
			if err != nil {
				return fmt.Errorf("pushing %s: %w", a.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// storePath is one that Nix could have given.
func (a archive) storePath() string {
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("+-._", r) {
			return r
		}
		return '_'
	}, a.name)
	return storepath.DefaultDir + "/" + pathHash("archive "+a.name+a.hash.String()) + "-" + "bench-" + name
}

// pathHash makes the hash of a store path from what identifies it.
func pathHash(of string) string { return digest.Of([]byte(of)).Nix32()[:storepath.HashLen] }
