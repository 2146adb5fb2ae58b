package observe

import (
	"io"
	"net/http"
)

// Recorder is a ResponseWriter that remembers what was answered. It can do all
// that the one around which it is can: files go from the kernel straight to the
// connection (ReadFrom), and http.ResponseController finds its way (Unwrap).
type Recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	http1  bool
}

// NewRecorder puts a recorder around w, or returns w where it is one.
func NewRecorder(w http.ResponseWriter) *Recorder {
	if r, ok := w.(*Recorder); ok {
		return r
	}
	return &Recorder{ResponseWriter: w}
}

// Status is the status of the answer; 200 where none was said.
func (r *Recorder) Status() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// Bytes is how many of the answer's body were sent.
func (r *Recorder) Bytes() int64 { return r.bytes }

// WriteHeader implements http.ResponseWriter.
func (r *Recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) { // the others announce another
		r.status = status
		if status == http.StatusRequestEntityTooLarge && r.http1 {
			// http.MaxBytesReader sees to it that nobody waits for the rest of such a
			// body, but only where it is given net/http's own writer.
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *Recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (r *Recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Flush implements http.Flusher, as far as the writer behind does.
func (r *Recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
