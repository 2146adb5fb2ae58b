package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that runs beside the benchmark.
type process struct {
	name string
	url  string
	cmd  *exec.Cmd
	said *bytes.Buffer
}

// startupTime is how long a server may take until it answers.
const startupTime = 10 * time.Second

var servingAt = regexp.MustCompile(` at (http://[^\s,]+)`)

// buildServer builds cmd/cacheserver of the module that the working directory is
// in.
func buildServer(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "cacheserver")
	const pkg = "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cmd/cacheserver"
	if err := command(ctx, "", "go", "build", "-o", binary, pkg); err != nil {
		return "", fmt.Errorf("%w (run it in the repository, or name a built server with --server)", err)
	}
	return binary, nil
}

// startServer starts cacheserver over a data directory, as its users do, with more
// flags where there are some.
func startServer(ctx context.Context, binary, data string, flags ...string) (*process, error) {
	p := &process{name: "cacheserver", said: &bytes.Buffer{}}
	p.cmd = exec.CommandContext(ctx, binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", data, "--gc-interval", "0"}, flags...)...)
	p.cmd.Stderr = p.said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	found := servingAt.FindStringSubmatch(line)
	if err != nil || found == nil {
		return nil, p.failed(fmt.Errorf("it said %q, and not where it serves", line))
	}
	p.url = found[1]
	return p, p.wait(ctx)
}

// nginxConfig serves files as the benchmark of a plain file server wants it. Every
// path that nginx would otherwise write to lies in its directory.
const nginxConfig = `%sdaemon off;
pid %[2]s/nginx.pid;
error_log stderr warn;
worker_processes 2;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_body_temp_path %[2]s/body;
    proxy_temp_path %[2]s/proxy;
    fastcgi_temp_path %[2]s/fastcgi;
    uwsgi_temp_path %[2]s/uwsgi;
    scgi_temp_path %[2]s/scgi;
    server {
        listen %[3]s;
        root %[4]s;
%[5]s    }
}
`

// takesFiles lets clients of nginx store files by PUT, of any size.
const takesFiles = `        client_max_body_size 0;
        dav_methods PUT;
        create_full_put_path on;
`

// startNginx starts nginx over a directory of files.
func startNginx(ctx context.Context, binary, dir, root string) (*process, error) {
	return startNginxWith(ctx, binary, dir, root, "")
}

// startFileStore starts nginx over an empty directory, into which clients store
// files.
func startFileStore(ctx context.Context, binary, dir string) (*process, error) {
	root := filepath.Join(dir, "files")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	return startNginxWith(ctx, binary, dir, root, takesFiles)
}

func startNginxWith(ctx context.Context, binary, dir, root, more string) (*process, error) {
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		// Its workers would else be of a user that cannot look into the directory.
		user = "user root;\n"
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, user, dir, addr, root, more), 0o600); err != nil {
		return nil, err
	}
	p := &process{name: "nginx", url: "http://" + addr, said: &bytes.Buffer{}}
	p.cmd = exec.CommandContext(ctx, binary, "-c", config, "-p", dir, "-e", "stderr")
	p.cmd.Stderr = p.said
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (it is in Debian's nginx-light; --nginx names another place)", err)
	}
	return p, p.wait(ctx)
}

func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// wait waits until the server answers.
func (p *process) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startupTime)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/nix-cache-info", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return p.failed(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// failed ends the process and tells what it said.
func (p *process) failed(err error) error {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	return fmt.Errorf("starting %s: %w: %.1000s", p.name, err, bytes.TrimSpace(p.said.Bytes()))
}

// stop ends the process in order.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	err := p.cmd.Wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGTERM {
		return nil // as one ends that takes no notice of it
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopping %s: %w: %.1000s", p.name, err, bytes.TrimSpace(p.said.Bytes()))
	}
	return nil
}

// cpu is what the process and its workers have used. It is 0 where /proc does
// not tell.
func (p *process) cpu() (total time.Duration) {
	pids := []string{strconv.Itoa(p.cmd.Process.Pid)}
	if workers, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%[1]s/children", pids[0])); err == nil {
		pids = append(pids, strings.Fields(string(workers))...)
	}
	for _, pid := range pids {
		total += cpuOf(pid)
	}
	return total
}

// tick is the kernel's unit of time in /proc, the same on all that Go runs on.
const tick = 10 * time.Millisecond

func cpuOf(pid string) time.Duration {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	// A name in parentheses, which may hold anything, comes before the numbers.
	_, rest, _ := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), " ")
	fields := strings.Fields(rest)
	const user, system = 11, 12
	if len(fields) <= system {
		return 0
	}
	var ticks int64
	for _, field := range []int{user, system} {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// measure adds what the server used to what the client saw.
func (p *process) measure(work func() error) (sample, error) {
	before := p.cpu()
	took, err := timed(work)
	took.cpu = p.cpu() - before
	return took, err
}

// discard reads all there is, in steps as large as a socket gives.
func discard(r io.Reader, buffer []byte) (n int64, err error) {
	for {
		m, err := r.Read(buffer)
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
