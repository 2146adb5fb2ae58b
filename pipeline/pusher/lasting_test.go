package pusher

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// A pusher that runs for days forgets what is held, tries again what failed, and
// gives up what was deleted.
func TestALastingPusher(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 3)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		fails := true
		c.answer = func(_ context.Context, what, name string) error {
			if fails && what == "upload" && name != "p0" {
				return errors.New("HTTP 500")
			}
			return nil
		}
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		c.pusher.Forget()
		want := []string{infos[1].Path, infos[2].Path}
		if got := c.pusher.Failed(); !slices.Equal(got, want) || len(c.pusher.items) != 2 {
			t.Fatalf("failed are %q of %d", got, len(c.pusher.items))
		}
		fails = false
		c.pusher.Drop(want[1:])
		c.pusher.Retry()
		c.pusher.Drain(t.Context())
		if missing := c.pusher.Missing(); len(missing) != 0 {
			t.Errorf("missing are %q", missing)
		}
		if got := c.requests("commit"); !slices.Equal(got, []string{"p0", "p1"}) {
			t.Errorf("committed were %q", got)
		}
		stop()
	})
}

// Every path has an end that is told, once for each try.
func TestTellsOfEveryPath(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 2)
	synctest.Test(t, func(t *testing.T) {
		var told []event.Event
		c := newCache(store)
		c.pusher = New(c, store, Config{Jobs: 1, Observer: event.Func(func(e event.Event) { told = append(told, e) })})
		c.has[hashOf(infos[0].Path)] = true
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		stop()
		var held, pushed int
		for _, e := range told {
			switch e := e.(type) {
			case event.PathHeld:
				held++
			case event.PathPushed:
				if e.Path == infos[1].Path && e.Err == nil {
					pushed++
				}
			}
		}
		if held != 1 || pushed != 1 {
			t.Errorf("told were %v", told)
		}
	})
}
