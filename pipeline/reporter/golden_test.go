package reporter

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

var update = flag.Bool("update", false, "write the golden files anew")

const store = "/nix/store/"

// store paths of the build that the golden files show.
var (
	libDrv  = store + "0c0hgpqmlxzr4z4ahf65vhnbg4kkzx5b-lib-1.0.drv"
	appDrv  = store + "1dnrvhy0ffvxhvn4z9z27fc3rb0cvq1a-app-2.1.drv"
	badDrv  = store + "2xjb2kn0q90jwvlbf3wkjzm6w0gzxq2r-docs-2.1.drv"
	libPath = store + "3b3kcp2jd3qzkzm6wl0ygm1w1yqgzvd3-lib-1.0"
	appPath = store + "4y1sq0b4a0mv6ahnb2f6vr0g0n8jkqd5-app-2.1"
	ccPath  = store + "5hxsr8d7vyz8hn3x3wrbmqmlcw4pdv6q-cc-13"
)

type timed struct {
	at time.Duration
	e  event.Event
}

// recorded is a build of three derivations, one of which fails, with a fetch, two
// pushes, a path that the cache has, a fault of the cache, and a minute in which
// nothing is said.
func recorded() []timed {
	sec := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return []timed{
		{sec(0), event.StepBegan{Step: "substituters"}},
		{sec(0.3), event.StepEnded{Step: "substituters", Took: sec(0.3), Outcome: event.Done, Text: "pulling from https://cache.example.org/main; pushing to https://cache.example.org/main"}},
		{sec(0.3), event.Note{Text: "left out for this run: https://old.example.org (no answer within 5s)"}},
		{sec(0.3), event.StepEnded{Step: "bootstrap", Outcome: event.Skipped, Text: "skipped: no tool was asked for"}},
		{sec(0.4), event.StepEnded{Step: "watch", Outcome: event.Done, Text: "each path is pushed as soon as it is valid"}},
		{sec(0.4), event.StepBegan{Step: "build"}},
		{sec(0.6), event.Output{Text: "these 3 derivations will be built:\n  " + libDrv + "\n  " + appDrv + "\n  " + badDrv + "\n"}},
		{sec(0.7), event.BuildsExpected{Change: 3}},
		{sec(0.7), event.FetchBegan{Path: ccPath, From: "https://cache.example.org/main"}},
		{sec(0.7), event.Output{Text: "copying path '" + ccPath + "' from 'https://cache.example.org/main'...\n"}},
		{sec(2), event.FetchEnded{Path: ccPath, From: "https://cache.example.org/main", Took: sec(1.3)}},
		{sec(2), event.PathHeld{Path: ccPath}},
		{sec(2), event.BuildBegan{Derivation: libDrv}},
		{sec(2), event.Output{Text: "building '" + libDrv + "'...\n"}},
		{sec(2.1), event.Output{Text: "::set-output name=outcome::stolen\n"}},
		{sec(6), event.BuildEnded{Derivation: libDrv, Took: sec(4)}},
		{sec(6), event.PushQueued{Paths: 1}},
		{sec(6), event.PathPushing{Path: libPath, NarSize: 40 << 20}},
		{sec(6.1), event.BuildBegan{Derivation: appDrv}},
		{sec(6.1), event.Output{Text: "building '" + appDrv + "'...\n"}},
		{sec(6.2), event.BuildBegan{Derivation: badDrv}},
		{sec(6.2), event.Output{Text: "building '" + badDrv + "'...\n"}},
		{sec(7), event.PathSent{Path: libPath, Bytes: 10 << 20, NarSize: 40 << 20}},
		{sec(8), event.PathSent{Path: libPath, Bytes: 20 << 20, NarSize: 40 << 20}},
		{sec(9), event.PathSent{Path: libPath, Bytes: 30 << 20, NarSize: 40 << 20}},
		{sec(10), event.PathPushed{Path: libPath, NarSize: 40 << 20, Took: sec(4)}},
		{sec(10), event.PushQueued{Paths: 0}},
		{sec(16), event.StepGoesOn{Step: "build", Took: sec(15.6), Text: "2 to go"}},
		{sec(71), event.BuildEnded{Derivation: appDrv, Took: sec(64.9)}},
		{sec(71), event.PushQueued{Paths: 1}},
		{sec(71), event.PathPushing{Path: appPath, NarSize: 1 << 20}},
		{sec(71.5), event.PathPushed{Path: appPath, NarSize: 1 << 20, Took: sec(0.5), Err: errors.New("the disk is full")}},
		{sec(71.5), event.PushQueued{Paths: 0}},
		{sec(71.5), event.CacheFault{Text: "cache https://cache.example.org/main: HTTP 507"}},
		{sec(75), event.BuildEnded{Derivation: badDrv, Took: sec(68.8), Failed: true}},
		{sec(75), event.BuildsExpected{Change: -1}},
		{sec(75), event.Output{Text: message + "\n"}},
		{sec(75.1), event.InstallableEnded{Installable: ".#app", Outcome: event.Done, Took: sec(70), Results: []string{appPath}}},
		{sec(75.1), event.InstallableEnded{Installable: ".#docs", Outcome: event.Failed, Took: sec(74), Text: message}},
		{sec(75.1), event.InstallableEnded{Installable: ".#tests", Outcome: event.Skipped, Text: "is in the cache"}},
		{sec(75.1), event.StepEnded{Step: "build", Took: sec(74.7), Outcome: event.Failed, Text: "failed"}},
		{sec(75.2), event.StepBegan{Step: "closure push"}},
		{sec(75.4), event.StepEnded{Step: "closure push", Took: sec(0.2), Outcome: event.Done, Text: "3 paths, 1 of them missing in the cache"}},
		{sec(75.5), event.StepEnded{Step: "summary", Took: sec(75.5), Outcome: event.Done, Text: "failed: 2 built, 1 substituted"}},
	}
}

const message = `error: builder for '/nix/store/2xjb2kn0q90jwvlbf3wkjzm6w0gzxq2r-docs-2.1.drv' failed with exit code 1
       at /nix/store/6zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-source/docs/default.nix:12:3:`

func sampleReport() *flywheel.Report {
	return &flywheel.Report{
		Schema: 1, Outcome: flywheel.Failed, Seconds: 75.5, Built: 2, Substituted: 1,
		Results: []string{appPath}, Pushed: flywheel.Pushed{Paths: 1, NarBytes: 40 << 20, SentBytes: 9 << 20},
		Missing: []string{appPath}, CacheErrors: []string{"cache https://cache.example.org/main: HTTP 507"},
		Cache: "https://cache.example.org/main", Message: message,
	}
}

// clock is time that goes on as the test says, with what is to happen now and then.
type clock struct {
	began, now time.Time
	every      []time.Duration
	calls      []func()
}

func newClock() *clock {
	began := time.Unix(1_700_000_000, 0)
	return &clock{began: began, now: began}
}

func (c *clock) options(o Options) Options {
	o.now = func() time.Time { return c.now }
	o.every = func(d time.Duration, f func()) func() {
		c.every, c.calls = append(c.every, d), append(c.calls, f)
		return func() { c.every, c.calls = nil, nil }
	}
	return o
}

func (c *clock) until(at time.Duration) {
	const tick = 100 * time.Millisecond
	for c.now.Sub(c.began)+tick <= at {
		c.now = c.now.Add(tick)
		for i, d := range c.every {
			if c.now.Sub(c.began)%d == 0 {
				c.calls[i]()
			}
		}
	}
}

// play shows the recorded build with a reporter.
func play(t *testing.T, kind Kind, o Options, at func(time.Duration)) {
	t.Helper()
	c := newClock()
	r := New(kind, c.options(o))
	for _, s := range recorded() {
		c.until(s.at)
		r.Observe(s.e)
		if at != nil {
			at(s.at)
		}
	}
	if err := r.Finish(sampleReport()); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is another (-update writes it):\n%s", name, got)
	}
}

var stopToken = regexp.MustCompile(`::stop-commands::(\S+)`)

func TestOneBuildUnderEachReporter(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Plain, GitLab, GitHub, JSON, JSONLines} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			env := map[string]string{
				"GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"),
			}
			var out bytes.Buffer
			play(t, kind, Options{Out: &out, Getenv: func(n string) string { return env[n] }, Secrets: []string{"not-to-be-seen"}}, nil)
			text := out.String()
			for _, m := range stopToken.FindAllStringSubmatch(text, -1) {
				text = strings.ReplaceAll(text, m[1], "TOKEN")
			}
			// Escapes are to be seen in the file.
			text = strings.NewReplacer("\x1b", "␛", "\r", "␍").Replace(text)
			golden(t, string(kind)+".golden", []byte(text))
			if kind != GitHub {
				return
			}
			output, err := os.ReadFile(env["GITHUB_OUTPUT"])
			if err != nil || !strings.Contains(string(output), "outcome<<") || strings.Contains(string(output), "stolen") {
				t.Errorf("outputs: %v\n%s", err, output)
			}
			if summary, err := os.ReadFile(env["GITHUB_STEP_SUMMARY"]); err != nil || !strings.Contains(string(summary), "failed in 75.5 s") {
				t.Errorf("summary: %v\n%s", err, summary)
			}
		})
	}
}

// The recording is looked at through a terminal: what stands on the screen at some
// moments, and in the end.
func TestWhatATerminalShows(t *testing.T) {
	t.Parallel()
	screen := newScreen(72, 20)
	var frames strings.Builder
	want := map[time.Duration]bool{700 * time.Millisecond: true, 9 * time.Second: true, 16 * time.Second: true, 71 * time.Second: true}
	play(t, Terminal, Options{Out: screen, Columns: func() int { return 72 }}, func(at time.Duration) {
		if want[at] {
			fmt.Fprintf(&frames, "── after %v\n%s", at, screen)
			delete(want, at)
		}
	})
	fmt.Fprintf(&frames, "── in the end\n%s", screen)
	golden(t, "terminal.golden", []byte(frames.String()))
}
