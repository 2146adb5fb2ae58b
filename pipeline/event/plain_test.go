package event

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPlainWritesStepsNotesAndOutputAsTheyCome(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := NewPlain(&out)
	for _, e := range []Event{
		StepBegan{"build"},
		BuildBegan{"/nix/store/x.drv"},
		Output{"building 'x'...\n"},
		StepGoesOn{"build", 10 * time.Second, "2 to go"},
		StepEnded{"build", 11 * time.Second, Done, "1 result"},
		Note{"and a note"},
		InstallableEnded{Installable: ".#a", Outcome: Done, Took: time.Second},
		InstallableEnded{Installable: ".#b", Outcome: Failed, Took: 2 * time.Second, Text: "error: no"},
		InstallableEnded{Installable: ".#c", Outcome: Skipped, Text: "is in the cache"},
		PathPushing{"/nix/store/x", 1},
		CacheFault{"away"},
	} {
		p.Observe(e)
	}
	const want = `building 'x'...
build            10.0s  2 to go
build            11.0s  1 result
                       and a note
  built           1.0s  .#a
  built           2.0s  .#b failed
  built           0.0s  .#c is in the cache
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPlainKeepsLinesOfSeveralGoroutinesApart(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	var told int
	var mu sync.Mutex
	o := Tee(NewPlain(&out), Func(func(Event) {
		mu.Lock()
		defer mu.Unlock()
		told++
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				o.Observe(Output{"a line\n"})
			}
		})
	}
	wg.Wait()
	if got := strings.Count(out.String(), "a line\n"); got != 400 || len(out.String()) != 400*len("a line\n") || told != 400 {
		t.Errorf("%d whole lines, %d told", got, told)
	}
}
