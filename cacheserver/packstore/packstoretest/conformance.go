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
		"PutThenRead":         putThenRead,
		"ASecondPutIsRefused": secondPut,
		"AFailedPutIsUnseen":  failedPut,
		"Absent":              absent,
		"BadNames":            badNames,
		"OutOfRange":          outOfRange,
		"DeleteAndList":       deleteAndList,
		"ManyAtOnce":          manyAtOnce,
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
		}
		if n, err := s.Size(t.Context(), "a"); n != 10000 || err != nil {
			t.Errorf("Size = %d, %v", n, err)
		}
	}
}

func secondPut(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	put(t, s, "a", "first")
	err := s.Put(t.Context(), "a", 6, strings.NewReader("second"))
	if !errors.Is(err, packstore.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if got, err := read(t.Context(), s, "a", 0, 5); got != "first" || err != nil {
		t.Errorf("the first pack is now %q, %v", got, err)
	}
}

func failedPut(t *testing.T, s packstore.Store, reopen func() packstore.Store) {
	broken := errors.New("connection reset")
	for name, body := range map[string]io.Reader{
		"short":  strings.NewReader("123"),
		"long":   strings.NewReader("123456"),
		"broken": io.MultiReader(strings.NewReader("12"), errReader{broken}),
	} {
		if err := s.Put(t.Context(), name, 5, body); err == nil {
			t.Errorf("%s body: no error", name)
		} else if name == "broken" && !errors.Is(err, broken) {
			t.Errorf("got %v, want the reader's error", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "cancelled", 5, strings.NewReader("12345")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	for _, s := range []packstore.Store{s, reopen()} {
		if got := list(t, s); len(got) != 0 {
			t.Errorf("failed puts left %v", got)
		}
	}
	put(t, s, "short", "12345")
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func absent(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	if _, err := s.Open(t.Context(), "gone", 0, 1); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("Open: got %v, want ErrNotFound", err)
	}
	if _, err := s.Size(t.Context(), "gone"); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("Size: got %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), "gone"); err != nil {
		t.Errorf("Delete: %v", err)
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
		if got, err := read(t.Context(), s, "a", r.offset, r.length); err == nil {
			t.Errorf("%d bytes at %d of 5: read %q", r.length, r.offset, got)
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

func manyAtOnce(t *testing.T, s packstore.Store, _ func() packstore.Store) {
	const writers = 16
	body := bytes.Repeat([]byte("pack"), 4096)
	var g errgroup.Group
	won := make(chan int, writers)
	for i := range writers {
		g.Go(func() error {
			if err := s.Put(t.Context(), fmt.Sprintf("own%d", i), int64(len(body)), bytes.NewReader(body)); err != nil {
				return err
			}
			switch err := s.Put(t.Context(), "contested", int64(len(body)), bytes.NewReader(body)); {
			case err == nil:
				won <- i
			case !errors.Is(err, packstore.ErrExists):
				return err
			}
			got, err := read(t.Context(), s, "contested", 0, int64(len(body)))
			if err == nil && got != string(body) {
				err = errors.New("a pack was read before it was whole")
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Errorf("%d writers wrote the same pack, want 1", len(won))
	}
	if got := list(t, s); len(got) != writers+1 {
		t.Errorf("%d packs, want %d", len(got), writers+1)
	}
}
