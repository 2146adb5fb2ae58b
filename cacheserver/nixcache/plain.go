package nixcache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// errEnough is what the store learns when its bytes are not wanted any more.
var errEnough = errors.New("nobody reads on")

// eachByte calls read with a reader of a blob's bytes, of which every chunk was
// compared with its hash. An error of the store goes before read's own.
func (d *Door) eachByte(ctx context.Context, b index.Blob, read func(io.Reader) error) (err error) {
	pr, pw := io.Pipe()
	stored := make(chan error, 1)
	go func() {
		_, err := d.store.WriteChecked(ctx, pw, b, 0, b.FileSize)
		_ = pw.CloseWithError(err)
		stored <- err
	}()
	// read may panic, as net/http's handlers may.
	defer func() {
		_ = pr.CloseWithError(errEnough)
		if fault := <-stored; fault != nil && !errors.Is(fault, errEnough) {
			err = fault
		}
	}()
	plain, err := readZstd(pr)
	if err != nil {
		return err
	}
	return read(plain)
}

// sendPlain sends a blob's bytes, as write encodes them where it is not nil.
func (d *Door) sendPlain(w http.ResponseWriter, r *http.Request, b index.Blob, write func(io.Writer) (io.WriteCloser, error)) error {
	if write == nil {
		write = writePlain
		w.Header().Set("Content-Length", strconv.FormatInt(b.Size, 10))
	}
	if r.Method == http.MethodHead {
		return nil
	}
	begun := false
	var sent int64
	to := &beginner{func() { begun = true }, counting{w, &sent}}
	err := d.eachByte(r.Context(), b, func(plain io.Reader) error {
		out, err := write(to)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, plain); err != nil {
			return err
		}
		return out.Close()
	})
	var collected *cas.MissingChunksError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cas.ErrDamaged):
		d.reportDamage(r.Context(), err)
	case !begun && (errors.Is(err, index.ErrNotFound) || errors.As(err, &collected)):
		return errNoSuchFile
	}
	if !begun {
		return err
	}
	return d.breakOff(r, sent, err)
}

// counting counts the bytes that are written to it.
type counting struct {
	w io.Writer
	n *int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}
