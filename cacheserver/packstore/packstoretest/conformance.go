// Package packstoretest holds what every packstore.Store must do, as one suite
// that each engine's tests run.
package packstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// Run tests the stores that open returns. Each call of open gives an empty
// store; reopen gives another handle on the same storage, as a restart or a
// second replica would have.
func Run(t *testing.T, open func(t *testing.T) (store packstore.Store, reopen func() packstore.Store)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, packstore.Store, func() packstore.Store){
		"PutThenRead":          putThenRead,
		"ASecondPutIsRefused":  secondPut,
		"AFailedPutIsUnseen":   failedPut,
		"PutReadsFromHereOn":   putFromHere,
		"Absent":               absent,
		"AbsentInAnEmptyStore": emptyStore,
		"BadNames":             badNames,
		"OutOfRange":           outOfRange,
		"DeleteAndList":        deleteAndList,
		"DeletedWhileRead":     deletedWhileRead,
		"DeletedAndPutAgain":   deletedAndPutAgain,
		"ManyAtOnce":           manyAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, reopen := open(t)
			test(t, store, reopen)
		})
	}
}

func put(t *testing.T, s packstore.Store, name, body string) {
	t.Helper()
	if err := s.Put(t.Context(), name, int64(len(body)), strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, s packstore.Store, name string, offset, length int64) (string, error) {
	r, err := s.Open(ctx, name, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b := make([]byte, length)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

func copied(ctx context.Context, s packstore.Store, name string, offset, length int64) (string, error) {
	r, err := s.Open(ctx, name, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	var b bytes.Buffer
	n, err := packstore.CopyN(&b, r, length)
	if err == nil && n != int64(b.Len()) {
		err = fmt.Errorf("%d bytes were said to be copied, %d were", n, b.Len())
	}
	return b.String(), err
}

func list(t *testing.T, s packstore.Store) map[string]int64 {
	t.Helper()
	got := map[string]int64{}
	if err := s.List(t.Context(), func(name string, size int64) error {
		got[name] = size
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func putThenRead(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	body := strings.Repeat("0123456789", 1000)
	put(t, s, "a", body)
	for _, s := range []packstore.Store{s, reopen()} {
		for _, r := range []struct{ offset, length int64 }{{0, 10000}, {0, 1}, {9999, 1}, {1234, 4321}, {10000, 0}} {
			got, err := read(t.Context(), s, "a", r.offset, r.length)
			if err != nil || got != body[r.offset:r.offset+r.length] {
				t.Errorf("%d bytes at %d: wrong bytes or error %v", r.length, r.offset, err)
			}
			got, err = copied(t.Context(), s, "a", r.offset, r.length)
			if err != nil || got != body[r.offset:r.offset+r.length] {
				t.Errorf("copying %d bytes at %d: wrong bytes or error %v", r.length, r.offset, err)
			}
		}
		if n, err := s.Size(t.Context(), "a"); n != 10000 || err != nil {
			t.Errorf("Size = %d, %v", n, err)
		}
	}
}

func secondPut(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	put(t, s, "a", "first")
	for what, put := range map[string]func(s packstore.Store) error{
		"a second": func(s packstore.Store) error {
			return s.Put(t.Context(), "a", 6, strings.NewReader("second"))
		},
		"a second that can be read but once": func(s packstore.Store) error {
			return s.Put(t.Context(), "a", 6, io.MultiReader(strings.NewReader("second")))
		},
		// One that is refused long before it is read.
		"a big one": func(s packstore.Store) error {
			return s.Put(t.Context(), "a", 8<<20, bytes.NewReader(make([]byte, 8<<20)))
		},
	} {
		for _, s := range []packstore.Store{s, reopen()} {
			if err := put(s); !errors.Is(err, packstore.ErrExists) {
				t.Errorf("%s: got %v, want ErrExists", what, err)
			}
			if got, err := read(t.Context(), s, "a", 0, 5); got != "first" || err != nil {
				t.Errorf("after %s, the first pack is %q, %v", what, got, err)
			}
		}
	}
	if err := s.Put(t.Context(), "a", 9, strings.NewReader("short")); err == nil {
		t.Error("a body that is too short: no error")
	}
	if got, err := read(t.Context(), s, "a", 0, 5); got != "first" || err != nil {
		t.Errorf("after a broken second, the first pack is %q, %v", got, err)
	}
}

func failedPut(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	const size = 300_000 // more than is buffered on the way
	text := strings.Repeat("x", size)
	broken := errors.New("connection reset")
	for name, body := range map[string]io.Reader{
		"empty":     strings.NewReader(""),
		"short":     strings.NewReader(text[:size-1]),
		"shortonce": io.MultiReader(strings.NewReader(text[:size-1])),
		"long":      strings.NewReader(text + "x"),
		"longonce":  io.MultiReader(strings.NewReader(text), strings.NewReader("x")),
		"broken":    io.MultiReader(strings.NewReader(text[:size/2]), errReader{broken}),
		"brokenend": io.MultiReader(strings.NewReader(text), errReader{broken}),
		"cut":       io.MultiReader(strings.NewReader(text[:size/2]), errReader{io.ErrUnexpectedEOF}),
	} {
		err := s.Put(t.Context(), name, size, body)
		switch {
		case err == nil:
			t.Errorf("%s body: no error", name)
		case strings.HasPrefix(name, "broken") && !errors.Is(err, broken):
			t.Errorf("got %v, want the reader's error", err)
		case name == "cut" && !errors.Is(err, io.ErrUnexpectedEOF):
			t.Errorf("got %v, want the reader's error", err)
		case errors.Is(err, packstore.ErrUnavailable), errors.Is(err, packstore.ErrExists), errors.Is(err, packstore.ErrNoSpace):
			t.Errorf("%s body: %v: it is the body's fault", name, err)
		}
	}
	if err := s.Put(t.Context(), "negative", -1, strings.NewReader("")); err == nil {
		t.Error("a size of -1: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "cancelled", 5, strings.NewReader("12345")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	half := io.MultiReader(strings.NewReader(text[:size/2]), cancelReader{cancel}, strings.NewReader(text[size/2:]))
	if err := s.Put(ctx, "cancelledhalfway", size, half); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	for _, s := range []packstore.Store{s, reopen()} {
		if got := list(t, s); len(got) != 0 {
			t.Errorf("failed puts left %v", got)
		}
	}
	put(t, s, "short", "12345")
}

func putFromHere(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	body := strings.NewReader("not this: 12345")
	if _, err := body.Seek(10, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", 5, body); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), s, "a", 0, 5); got != "12345" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// cancelReader ends the context that its bytes are read for.
type cancelReader struct{ cancel func() }

func (c cancelReader) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func absent(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	for length := range int64(2) {
		if _, err := s.Open(t.Context(), "gone", 0, length); !errors.Is(err, packstore.ErrNotFound) {
			t.Errorf("Open of %d bytes: got %v, want ErrNotFound", length, err)
		}
	}
	if _, err := s.Size(t.Context(), "gone"); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("Size: got %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), "gone"); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func emptyStore(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	for _, s := range []packstore.Store{s, reopen()} {
		if got := list(t, s); len(got) != 0 {
			t.Errorf("List = %v", got)
		}
		absent(t, s, nil)
	}
}

func badNames(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	for _, name := range []string{"", "..", "../a", "a/b", "A", "a.pack", "a\x00", strings.Repeat("a", 65)} {
		if err := s.Put(t.Context(), name, 1, strings.NewReader("x")); err == nil {
			t.Errorf("Put(%q): no error", name)
		}
		if _, err := s.Open(t.Context(), name, 0, 1); err == nil {
			t.Errorf("Open(%q): no error", name)
		}
		if err := s.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete(%q): no error", name)
		}
	}
}

func outOfRange(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	put(t, s, "a", "12345")
	for _, r := range []struct{ offset, length int64 }{{0, 6}, {5, 1}, {6, 0}, {-1, 1}, {1 << 62, 1 << 62}} {
		got, err := read(t.Context(), s, "a", r.offset, min(r.length, 10))
		if r.length > 10 {
			_, err = s.Open(t.Context(), "a", r.offset, r.length)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes at %d of 5: read %q, %v; want io.ErrUnexpectedEOF", r.length, r.offset, got, err)
		}
	}
}

func deleteAndList(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	put(t, s, "a", "1")
	put(t, s, "bcd", "22")
	put(t, s, "xcd", "333")
	if err := s.Delete(t.Context(), "bcd"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(map[string]int64{"a": 1, "xcd": 3})
	for _, s := range []packstore.Store{s, reopen()} {
		if got := fmt.Sprint(list(t, s)); got != want {
			t.Errorf("List = %v, want %v", got, want)
		}
	}
	stop := errors.New("enough")
	if err := s.List(t.Context(), func(string, int64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("List returned %v, want visit's error", err)
	}
}

func deletedWhileRead(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	body := make([]byte, 12<<20)
	for i := range body {
		body[i] = byte(i / 1000)
	}
	if err := s.Put(t.Context(), "a", int64(len(body)), bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "a", 0, int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(body))
	n, err := io.ReadFull(r, got[:1000])
	if err != nil {
		t.Fatal(err)
	}
	// Storage may let Delete wait until nobody reads.
	var g errgroup.Group
	g.Go(func() error { return s.Delete(t.Context(), "a") })
	rest, err := io.ReadFull(r, got[n:])
	if !bytes.Equal(got[:n+rest], body[:n+rest]) {
		t.Error("a pack that was deleted while it was read gave other bytes")
	}
	if err == nil && n+rest != len(body) {
		t.Errorf("%d of %d bytes, and no error", n+rest, len(body))
	}
	_ = r.Close()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), s, "a", 0, 1); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("reading it anew: %q, %v; want ErrNotFound", got, err)
	}
}

func deletedAndPutAgain(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	for _, body := range []string{"first", "another", "next1"} {
		put(t, s, "a", body)
		if got, err := read(t.Context(), s, "a", 0, int64(len(body))); got != body || err != nil {
			t.Errorf("read %q, %v; want %q", got, err, body)
		}
		if n, err := s.Size(t.Context(), "a"); n != int64(len(body)) || err != nil {
			t.Errorf("Size = %d, %v; want %d", n, err, len(body))
		}
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
}

func manyAtOnce(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	const writers = 16
	const size = 100_000
	var g errgroup.Group
	won := make(chan byte, writers)
	for i := range byte(writers) {
		g.Go(func() error {
			body := bytes.Repeat([]byte{i}, size)
			if err := s.Put(t.Context(), fmt.Sprintf("own%d", i), size, bytes.NewReader(body)); err != nil {
				return err
			}
			switch err := s.Put(t.Context(), "contested", size, bytes.NewReader(body)); {
			case err == nil:
				won <- i
			case !errors.Is(err, packstore.ErrExists):
				return err
			}
			got, err := read(t.Context(), s, "contested", 0, size)
			if err == nil && strings.Count(got, got[:1]) != size {
				err = errors.New("a pack was read that several writers had written, or none in full")
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Fatalf("%d writers wrote the same pack, want 1", len(won))
	}
	if got, err := read(t.Context(), s, "contested", 0, 1); err != nil || got[0] != <-won {
		t.Errorf("the pack has %q, %v: not what its writer wrote", got, err)
	}
	if got := list(t, s); len(got) != writers+1 {
		t.Errorf("%d packs, want %d", len(got), writers+1)
	}
}
