package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// patience is how long a server may take to start or to end.
const patience = 2 * time.Minute

// server is a cacheserver that runs as a process.
type server struct {
	number int
	url    string
	key    string // public
	push   *push.Client

	cmd    *exec.Cmd
	log    lockedBuffer
	exited chan struct{}
	// dying is set before the process is killed: what fails from then on is no
	// fault.
	dying atomic.Bool
}

var (
	servingAt = regexp.MustCompile(`^serving cache "main" at (http://\S+), data in `)
	keyLine   = regexp.MustCompile(`^  extra-trusted-public-keys = (\S+)$`)
)

// launch starts the server of that number and does not wait until it serves.
func (s *storage) launch(t testing.TB, number int, flags ...string) (*server, io.Reader) {
	t.Helper()
	v := &server{number: number, exited: make(chan struct{})}
	v.cmd = s.command(t.Context(), t, number, append([]string{"serve", "--listen", "127.0.0.1:0"}, flags...)...)
	v.cmd.Stderr = &v.log
	out, err := v.cmd.StdoutPipe()
	must(t, err)
	must(t, v.cmd.Start())
	return v, out
}

// start starts the server of that number and waits until it serves. It is killed
// at the end of the test.
func (s *storage) start(t testing.TB, number int, flags ...string) *server {
	t.Helper()
	v, out := s.launch(t, number, flags...)
	slow := time.AfterFunc(patience, func() { _ = v.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for v.key == "" && lines.Scan() {
		if m := servingAt.FindStringSubmatch(lines.Text()); m != nil {
			v.url = m[1]
		}
		if m := keyLine.FindStringSubmatch(lines.Text()); m != nil {
			v.key = m[1]
		}
	}
	slow.Stop()
	go func() {
		defer close(v.exited)
		_, _ = io.Copy(io.Discard, out) // until the process has ended
		_ = v.cmd.Wait()                // its state says how
	}()
	t.Cleanup(v.kill)
	if v.key == "" {
		<-v.exited
		t.Fatalf("a server did not start: %v\n%s", v.cmd.ProcessState, v.log.tail())
	}
	var err error
	v.push, err = push.NewClient(v.url + "/main")
	must(t, err)
	return v
}

// startAndKill kills a server while it starts.
func (s *storage) startAndKill(t testing.TB, number int, after time.Duration, flags ...string) {
	t.Helper()
	v, _ := s.launch(t, number, flags...)
	time.Sleep(after)
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// kill ends the server with SIGKILL, and returns once it is gone.
func (v *server) kill() {
	v.dying.Store(true)
	_ = v.cmd.Process.Kill() // fails if it is gone
	<-v.exited
	if v.push != nil {
		v.push.Close()
	}
}

// stop ends the server as an operator does.
func (v *server) stop(t testing.TB) {
	t.Helper()
	v.dying.Store(true)
	must(t, v.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-v.exited:
	case <-time.After(patience):
		t.Fatalf("the server does not stop\n%s", v.log.tail())
	}
	if !v.cmd.ProcessState.Success() {
		t.Errorf("the server stopped with %v\n%s", v.cmd.ProcessState, v.log.tail())
	}
	v.push.Close()
}

var (
	crashed  = regexp.MustCompile(`panic|DATA RACE|fatal error|goroutine \d+ \[`)
	troubled = regexp.MustCompile(`(?m)^.*level=ERROR.*$`)
)

// check complains about a server that ended by itself, or has panicked.
func (v *server) check() error {
	if word := crashed.FindString(v.log.String()); word != "" {
		return fmt.Errorf("a server said %q\n%s", word, v.log.tail())
	}
	select {
	case <-v.exited:
		if !v.dying.Load() {
			return fmt.Errorf("a server ended by itself, %v\n%s", v.cmd.ProcessState, v.log.tail())
		}
	default:
	}
	return nil
}

// trouble is what the server calls an error, but for answers that broke off, as
// their paths may have been collected, and for packs that it wrote too slowly.
func (v *server) trouble() []string {
	return slices.DeleteFunc(troubled.FindAllString(v.log.String(), -1), func(s string) bool {
		return strings.Contains(s, `msg="sending a NAR"`) || strings.Contains(s, "half of the grace")
	})
}

// command is a cacheserver command over the storage. It does not outlive ctx, nor
// the tests' process, whatever ends that.
func (s *storage) command(ctx context.Context, t testing.TB, number int, args ...string) *exec.Cmd {
	t.Helper()
	words := 1
	if args[0] == "pin" || args[0] == "cache" || args[0] == "path" {
		words = 2
	}
	all := append(append(append([]string{}, args[:words]...), s.engineFlags(number)...), args[words:]...)
	cmd := exec.CommandContext(ctx, program(t), all...)
	cmd.Env = append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}, s.env...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// outcome is how a command ended.
type outcome struct {
	exit   int // -1: it was killed, or did not begin
	stdout string
	stderr string
}

// run runs a command until it ends, or kills it once ctx is done.
func (s *storage) run(ctx context.Context, t testing.TB, args ...string) outcome {
	t.Helper()
	cmd := s.command(ctx, t, 0, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its state says how it ended, if it began
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// mustRun runs a command that has to end with 0 and returns what it printed.
func (s *storage) mustRun(t testing.TB, args ...string) string {
	t.Helper()
	o := s.run(t.Context(), t, args...)
	if o.exit != 0 {
		t.Fatalf("cacheserver %s: status %d\n%s%s", strings.Join(args, " "), o.exit, o.stdout, o.stderr)
	}
	return o.stdout
}

// lockedBuffer keeps what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// notable is what is not about a request, from the end.
func (l *lockedBuffer) notable() string {
	const most = 60
	lines := slices.DeleteFunc(strings.Split(l.String(), "\n"), func(s string) bool { return strings.Contains(s, "msg=request ") })
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

func (l *lockedBuffer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = bytes.Buffer{}
}

// tail is the end of it.
func (l *lockedBuffer) tail() string {
	const most = 4 << 10
	s := l.String()
	return s[max(0, len(s)-most):]
}
