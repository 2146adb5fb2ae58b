package nixcache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxDrained is how much of a refused body is read and thrown away: a client that
// streams learns why it was refused only once it has sent all of it.
const maxDrained = 1 << 30 // bytes

// pacedBody is a request's body of any length. It may keep the server waiting for
// bodyTime, which its bytes earn back at slowestBody; one that comes more slowly
// ends with os.ErrDeadlineExceeded.
type pacedBody struct {
	r        io.Reader
	conn     *http.ResponseController
	patience time.Duration
	left     time.Duration // of the patience
	expects  bool          // the client sends nothing before it is told to go on
	read     int64
	err      error
}

func (d *Door) pacedBody(w http.ResponseWriter, r *http.Request) *pacedBody {
	return &pacedBody{
		r: r.Body, conn: http.NewResponseController(w), patience: d.patience, left: d.patience,
		expects: strings.EqualFold(r.Header.Get("Expect"), "100-continue"),
	}
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	begun := time.Now()
	// Not every ResponseWriter has a connection: a test's recorder has none.
	_ = b.conn.SetReadDeadline(begun.Add(b.left))
	n, err := b.r.Read(p)
	b.read += int64(n)
	b.left = min(b.patience, b.left-time.Since(begun)+time.Duration(n)*time.Second/slowestBody)
	switch {
	case err == io.EOF: //nolint:errorlint // only the bare one is the end
		// The connection is listened to while the request is worked on; a deadline
		// that passed then would end it.
		_ = b.conn.SetReadDeadline(time.Time{})
	case err != nil:
		// The client's fault it is, whatever became of the connection.
		err = fmt.Errorf("%w body: it broke off: %w", errMalformed, err)
	}
	b.err = err
	return n, err
}

// drain reads what is left of the body, so that the client reads the answer.
func (b *pacedBody) drain() {
	if b.err != nil || b.expects && b.read == 0 {
		return
	}
	_, _ = io.CopyN(io.Discard, b, maxDrained)
}

// drain reads what is left of the body of a request that is refused because of
// err.
func (d *Door) drain(w http.ResponseWriter, r *http.Request, err error) {
	if r.Method == http.MethodPut && r.Context().Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		d.pacedBody(w, r).drain()
	}
}
