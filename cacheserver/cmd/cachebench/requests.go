package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// puller is a client of a number of connections, which it keeps.
type puller struct {
	http        *http.Client
	connections int
}

func newPuller(connections int) *puller {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = connections, connections
	transport.DisableCompression = true
	transport.ReadBufferSize = 64 << 10
	return &puller{http: &http.Client{Transport: transport}, connections: connections}
}

func (p *puller) close() { p.http.CloseIdleConnections() }

// readBuffer is what is read from a connection at a time.
const readBuffer = 256 << 10

// pull gets n files, the names of which begin anew after the last, and throws
// them away.
func (p *puller) pull(ctx context.Context, base string, names []string, n int) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range p.connections {
		g.Go(func() error {
			buffer := make([]byte, readBuffer)
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				err := p.get(ctx, base+"/"+names[i%len(names)], func(body io.Reader) (int64, error) {
					return discard(body, buffer)
				})
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// save gets files and writes them below a directory.
func (p *puller) save(ctx context.Context, base string, names []string, dir string) error {
	for _, name := range names {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		err := storeIn(file, func(w io.Writer) error {
			return p.get(ctx, base+"/"+name, func(body io.Reader) (int64, error) { return io.Copy(w, body) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// get reads a file, which must come whole.
func (p *puller) get(ctx context.Context, url string, read func(io.Reader) (int64, error)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := read(resp.Body)
	if err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK || n != resp.ContentLength {
		return fmt.Errorf("%s: HTTP %d and %d of %d bytes", url, resp.StatusCode, n, resp.ContentLength)
	}
	return nil
}
