package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

const (
	// windowBytes is how much of a NAR is asked about and sent at once.
	windowBytes = 4 << 20
	// senders is how many windows of one NAR are on their way at a time.
	senders = 2
)

// window is a run of a NAR's chunks with their bytes.
type window struct {
	chunks []digest.Chunk
	bytes  []byte
}

// Upload sends those chunks of a NAR that the server lacks and returns the list
// of all of its chunks, for Commit. dump writes the NAR, of about size bytes
// (what it costs in memory is reserved by that), and is called once.
func (c *Client) Upload(ctx context.Context, size int64, average int, dump func(io.Writer) error) ([]digest.Chunk, error) {
	var chunks []digest.Chunk
	pr, pw := io.Pipe()
	windows := make(chan window)
	reserve := 2 * min(size+chunker.DefaultAverage, windowBytes) // chunks and their frames

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := dump(pw)
		_ = pw.CloseWithError(err)
		if errors.Is(err, errUploadOver) {
			return nil // the reader's error tells why
		}
		return err
	})
	g.Go(func() (err error) {
		defer close(windows)
		defer func() { _ = pr.CloseWithError(errUploadOver) }()
		chunks, err = c.cut(ctx, pr, average, reserve, windows)
		return err
	})
	for range senders {
		g.Go(func() error {
			for w := range windows {
				err := c.sendWindow(ctx, w)
				c.budget.Release(reserve)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return chunks, nil
}

var errUploadOver = errors.New("the upload is over")

// cut fills windows with chunks. Each holds a reservation that its sender gives
// back.
func (c *Client) cut(ctx context.Context, r io.Reader, average int, reserve int64, windows chan<- window) (all []digest.Chunk, err error) {
	ch, err := chunker.New(r, chunker.Params{Average: average})
	if err != nil {
		return nil, err
	}
	var w window
	held := false
	defer func() {
		if held {
			c.budget.Release(reserve)
		}
	}()
	flush := func() error {
		if !held {
			return nil
		}
		select {
		case windows <- w:
			w, held = window{}, false
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		b, err := ch.Next()
		if errors.Is(err, io.EOF) {
			return all, flush()
		}
		if err != nil {
			return nil, err
		}
		if held && len(w.bytes)+len(b) > cap(w.bytes) {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		if !held {
			if err := c.budget.Acquire(ctx, reserve); err != nil {
				return nil, err
			}
			held = true
			w.bytes = make([]byte, 0, max(int(reserve/2), len(b)))
		}
		chunk := digest.Chunk{Hash: digest.Of(b), Size: uint32(len(b))}
		all = append(all, chunk)
		w.chunks = append(w.chunks, chunk)
		w.bytes = append(w.bytes, b...)
	}
}

// sendWindow sends what the server lacks of a window.
func (c *Client) sendWindow(ctx context.Context, w window) error {
	hashes := make([]digest.Hash, len(w.chunks))
	for i, ch := range w.chunks {
		hashes[i] = ch.Hash
	}
	missing, err := c.missingChunks(ctx, hashes)
	if err != nil {
		return err
	}
	wanted := make(map[digest.Hash]bool, len(missing))
	for _, h := range missing {
		wanted[h] = true
	}
	var body []byte
	at := 0
	for _, ch := range w.chunks {
		plain := w.bytes[at : at+int(ch.Size)]
		at += int(ch.Size)
		if !wanted[ch.Hash] {
			continue
		}
		delete(wanted, ch.Hash)
		if body == nil {
			body = make([]byte, 0, len(w.bytes)/2)
		}
		body = AppendFrame(body, pack.Frame{Chunk: ch, Data: frame.Encode(nil, plain)})
	}
	if body == nil {
		return nil
	}
	if _, err := c.retry(ctx, http.MethodPost, "chunks", "application/octet-stream", body, http.StatusNoContent); err != nil {
		return fmt.Errorf("sending chunks: %w", err)
	}
	return nil
}
