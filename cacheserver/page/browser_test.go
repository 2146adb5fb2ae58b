package page_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium, spoken to in its DevTools protocol.
type browser struct {
	t       testing.TB
	ctx     context.Context
	out     *os.File
	session string

	mu      sync.Mutex
	next    int
	answers map[int]chan message
	faults  []string // what a developer would see in the console
	loaded  chan struct{}
}

type message struct {
	ID        int             `json:"id,omitempty"`
	Method    string          `json:"method,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// startBrowser skips the test where there is no Chromium.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium to look at the pages with: apt-get install --no-install-recommends chromium")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	theirs, ours, err := os.Pipe()
	must(t, err)
	read, write, err := os.Pipe()
	must(t, err)
	home := browserHome(t)
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-component-update", "--disable-background-networking", "--user-data-dir="+home, "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.ExtraFiles = []*os.File{theirs, write} // 3 and 4, as Chromium expects
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	theirs.Close()
	write.Close()
	b := &browser{t: t, ctx: ctx, out: ours, answers: map[int]chan message{}, loaded: make(chan struct{}, 8)}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(read) })
	t.Cleanup(func() {
		_, _ = b.send("Browser.close", nil)
		ours.Close()
		_ = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what outlives it, and still writes
		reading.Wait()
		read.Close()
	})
	var target struct{ TargetID string }
	b.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Log", "Network", "Runtime"} {
		b.do(domain+".enable", nil, nil)
	}
	b.do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	return b
}

// browserHome is a directory that is removed even while the browser's last
// processes, which nobody can wait for, are still writing files there.
func browserHome(t testing.TB) string {
	t.Helper()
	home, err := os.MkdirTemp("", "browser-")
	must(t, err)
	t.Cleanup(func() {
		for range 100 {
			if err = os.RemoveAll(home); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("removing the browser's files: %v", err)
	})
	return home
}

// read takes messages, which end with a zero byte, until the browser ends.
func (b *browser) read(from *os.File) {
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, waiting := range b.answers {
				close(waiting)
			}
			b.answers = nil
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		switch m.Method {
		case "":
			if waiting := b.answers[m.ID]; waiting != nil {
				waiting <- m
				delete(b.answers, m.ID)
			}
		case "Page.loadEventFired":
			b.loaded <- struct{}{}
		case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed":
			b.faults = append(b.faults, m.Method+" "+string(m.Params))
		}
		b.mu.Unlock()
	}
}

func (b *browser) send(method string, params any) (chan message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answers == nil {
		return nil, fmt.Errorf("%s: the browser has ended", method)
	}
	b.next++
	text, err := json.Marshal(map[string]any{"id": b.next, "method": method, "params": params, "sessionId": b.session})
	if b.session == "" {
		text, err = json.Marshal(map[string]any{"id": b.next, "method": method, "params": params})
	}
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	b.answers[b.next] = answer
	_, err = b.out.Write(append(text, 0))
	return answer, err
}

func (b *browser) do(method string, params, result any) {
	b.t.Helper()
	answer, err := b.send(method, params)
	must(b.t, err)
	select {
	case m, ok := <-answer:
		if !ok || m.Error != nil {
			b.t.Fatalf("%s: %+v", method, m.Error)
		}
		if result != nil {
			must(b.t, json.Unmarshal(m.Result, result))
		}
	case <-b.ctx.Done():
		b.t.Fatalf("%s: the browser does not answer", method)
	}
}

// view is how a page is looked at.
type view struct {
	name   string
	scheme string // of colours: light or dark
	width  int    // in CSS pixels
}

var views = []view{{"light-wide", "light", 1280}, {"dark-wide", "dark", 1280}, {"light-narrow", "light", 390}, {"dark-narrow", "dark", 390}}

// look opens a page and returns what the console says, and the size of what there
// is to see.
func (b *browser) look(v view, url string) (faults []string, width, height int) {
	b.t.Helper()
	b.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": v.scheme}}}, nil)
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": v.width, "height": 800, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.mu.Lock()
	b.faults = nil
	b.mu.Unlock()
	var navigated struct{ ErrorText string }
	b.do("Page.navigate", map[string]any{"url": url}, &navigated)
	if navigated.ErrorText != "" {
		b.t.Fatalf("%s: %s", url, navigated.ErrorText)
	}
	select {
	case <-b.loaded:
	case <-b.ctx.Done():
		b.t.Fatalf("%s does not load", url)
	}
	var metrics struct {
		CSSContentSize struct{ Width, Height float64 } `json:"cssContentSize"`
	}
	b.do("Page.getLayoutMetrics", nil, &metrics)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults, int(metrics.CSSContentSize.Width), int(metrics.CSSContentSize.Height)
}

// shoot keeps a picture of the whole page where the environment names a directory
// for them.
func (b *browser) shoot(name string, width, height int) {
	b.t.Helper()
	dir := os.Getenv("PAGE_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.do("Page.captureScreenshot", map[string]any{
		"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
	}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	must(b.t, err)
	must(b.t, os.MkdirAll(dir, 0o755))
	must(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// PAGE_SCREENSHOTS=dir go test ./cacheserver/page -run Browser keeps pictures of
// all pages.
func TestPagesRenderInABrowserWithoutScripts(t *testing.T) {
	t.Parallel()
	full, empty := open(t), open(t)
	full.fill(t)
	b := startBrowser(t)
	for _, c := range []struct{ name, url string }{
		{"home", full.url + "/"},
		{"home-empty", empty.url + "/"},
		{"cache", full.url + "/-/cache/main"},
		{"cache-empty", empty.url + "/-/cache/main"},
		{"search", full.url + "/-/cache/main?q=nodejs"},
		{"search-nothing", full.url + "/-/cache/main?q=nothing-like-that"},
		{"path", full.url + "/-/cache/main/" + base("web-frontend-4.2.1")},
		{"path-referred", full.url + "/-/cache/main/" + base("glibc-2.40-66")},
	} {
		for _, v := range views {
			if os.Getenv("PAGE_SCREENSHOTS") == "" && (v.scheme == "dark") == (v.width > 1000) {
				continue // two are enough to find faults
			}
			faults, width, height := b.look(v, c.url)
			b.shoot(c.name+"-"+v.name, width, height)
			for _, f := range faults {
				t.Errorf("%s, %s: %s", c.name, v.name, f)
			}
			if width > v.width {
				t.Errorf("%s, %s: the page is %d pixels wide and has to be scrolled sideways", c.name, v.name, width)
			}
		}
	}
}
