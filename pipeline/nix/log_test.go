package nix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

const (
	lowDrv = "/nix/store/y53yhv9i7rgq0ha89l8qh29vcq6m4wpd-low.drv"
	topDrv = "/nix/store/mwwq5j04jg5s0zq80s2z3k6nhrfai4kv-top.drv"
)

// said is what Nix 2.8 wrote for two builds, of which the second failed.
const said = `@nix {"action":"start","id":1,"level":0,"text":"","type":104}
@nix {"action":"start","id":9,"level":6,"text":"querying info about missing paths","type":0}
@nix {"action":"start","fields":["/nix/store/x-fetched","http://c","daemon"],"id":2,"level":3,"text":"copying path '/nix/store/x-fetched' from 'http://c'","type":100}
@nix {"action":"stop","id":2}
@nix {"action":"start","fields":["` + lowDrv + `","",1,1],"id":3,"level":3,"text":"building '` + lowDrv + `'","type":105}
@nix {"action":"start","fields":["` + topDrv + `","",1,1],"id":4,"level":3,"text":"building '` + topDrv + `'","type":105}
@nix {"action":"result","fields":["hi \u001b[31mthere"],"id":3,"type":101}
@nix {"action":"result","fields":["bad"],"id":4,"type":101}
@nix {"action":"result","fields":[1,2,1,0],"id":1,"type":105}
@nix {"action":"stop","id":3}
@nix {"action":"result","fields":[1,2,0,1],"id":1,"type":105}
@nix {"action":"stop","id":4}
no message of Nix's
@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m builder for '\u001b[35;1m` + topDrv + `\u001b[0m' failed with exit code 1"}
@nix {broken
cut off`

func everySecond() func() time.Time {
	now := time.Unix(0, 0)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func readLog(t *testing.T, size int, args ...string) (text string, events []string) {
	t.Helper()
	var out strings.Builder
	l := newLogReader(&out, Request{Observer: event.Func(func(e event.Event) { events = append(events, fmt.Sprintf("%T %v", e, e)) }), Args: args})
	l.now = everySecond()
	for rest := said; rest != ""; {
		n := min(size, len(rest))
		if _, err := l.Write([]byte(rest[:n])); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	l.close()
	return out.String(), events
}

func TestReadsWhatNixSays(t *testing.T) {
	t.Parallel()
	const want = `copying path '/nix/store/x-fetched' from 'http://c'...
building '` + lowDrv + `'...
building '` + topDrv + `'...
no message of Nix's
error: builder for '` + topDrv + `' failed with exit code 1;
       last 1 log lines:
       > bad
       For full logs, run 'nix log ` + topDrv + `'.
@nix {broken
cut off
`
	wantEvents := []string{
		"event.FetchBegan {/nix/store/x-fetched http://c}",
		"event.FetchEnded {/nix/store/x-fetched http://c 1s}",
		"event.BuildBegan {" + lowDrv + "}",
		"event.BuildBegan {" + topDrv + "}",
		"event.BuildsExpected {2}",
		"event.BuildEnded {" + lowDrv + " 2s false}",
		"event.BuildEnded {" + topDrv + " 2s true}",
		"event.BuildsExpected {-1}",
	}
	for _, size := range []int{1, 7, 1 << 20} {
		text, events := readLog(t, size)
		if text != want {
			t.Errorf("in pieces of %d: got\n%s\nwant\n%s", size, text, want)
		}
		if !slices.Equal(events, wantEvents) {
			t.Errorf("in pieces of %d: got\n%s", size, strings.Join(events, "\n"))
		}
	}
}

func TestPrintsWhatNixsArgumentsAskFor(t *testing.T) {
	t.Parallel()
	if text, _ := readLog(t, 100, "--quiet"); strings.Contains(text, "building '") {
		t.Errorf("--quiet: %s", text)
	}
	text, _ := readLog(t, 100, "-L", "-vvv")
	for _, line := range []string{"low> hi there", "top> bad", "querying info about missing paths..."} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("-L -vvv: no line %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "last 1 log lines") {
		t.Error("with -L, the log's end is printed twice")
	}
}

// together is what Nix 2.8 wrote, with --keep-going, for three builds of which none
// is a part of another: it ends them when the last has ended, in an order of its own.
const together = `@nix {"action":"start","id":1,"type":104}
@nix {"action":"start","fields":["/nix/store/bad.drv"],"id":2,"type":105}
@nix {"action":"result","fields":[0,3,1,0],"id":1,"type":105}
@nix {"action":"start","fields":["/nix/store/quick.drv"],"id":3,"type":105}
@nix {"action":"result","fields":[0,3,2,0],"id":1,"type":105}
@nix {"action":"result","fields":[1,3,1,0],"id":1,"type":105}
@nix {"action":"start","fields":["/nix/store/slow.drv"],"id":4,"type":105}
@nix {"action":"result","fields":[1,3,2,0],"id":1,"type":105}
@nix {"action":"result","fields":[1,2,1,1],"id":1,"type":105}
@nix {"action":"result","fields":[2,2,0,1],"id":1,"type":105}
@nix {"action":"stop","id":4}
@nix {"action":"stop","id":3}
@nix {"action":"stop","id":2}
`

func TestTheEndOfABuildIsToldWhenItEnds(t *testing.T) {
	t.Parallel()
	var events []string
	made := map[string]bool{}
	l := newLogReader(&strings.Builder{}, Request{
		Observer: event.Func(func(e event.Event) { events = append(events, fmt.Sprintf("%T %v", e, e)) }),
		Made:     func(drv string) bool { return made[drv] },
	})
	l.now = everySecond()
	for line := range strings.Lines(together) {
		switch {
		case strings.Contains(line, "[1,3,1,0]"):
			made["/nix/store/quick.drv"] = true
		case strings.Contains(line, "[2,2,0,1]"):
			made["/nix/store/slow.drv"] = true
		}
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if open := strings.Count(strings.Join(events, "\n"), "BuildBegan") - strings.Count(strings.Join(events, "\n"), "BuildEnded"); int64(open) != l.open {
			t.Errorf("after %s: %d are counted, %d told", line, l.open, open)
		}
	}
	want := []string{
		"event.BuildBegan {/nix/store/bad.drv}",
		"event.BuildsExpected {3}",
		"event.BuildBegan {/nix/store/quick.drv}",
		"event.BuildEnded {/nix/store/quick.drv 1s false}",
		"event.BuildBegan {/nix/store/slow.drv}",
		"event.BuildsExpected {-1}",
		"event.BuildEnded {/nix/store/slow.drv 1s false}",
		"event.BuildEnded {/nix/store/bad.drv 5s true}",
	}
	if !slices.Equal(events, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(events, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte(said))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newLogReader(&strings.Builder{}, Request{Observer: event.Discard, Made: func(drv string) bool { return len(drv)%2 == 0 }})
		if n, err := l.Write(text); n != len(text) || err != nil {
			t.Errorf("%d of %d bytes, %v", n, len(text), err)
		}
		l.close()
	})
}
