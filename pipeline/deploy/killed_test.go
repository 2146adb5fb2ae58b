package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deployerVariable makes the test's program one that deploys, so that it can be
// killed: it has the state's URL, the API server's and the gate, by commas.
const deployerVariable = "DEPLOY_TEST_DEPLOYER"

func TestMain(m *testing.M) {
	if said := os.Getenv(deployerVariable); said != "" {
		os.Exit(deployer(strings.Split(said, ",")))
	}
	os.Exit(m.Run())
}

func deployer(said []string) int {
	o := jobOf(said[0], said[1], os.Getenv("TOFU"), os.Stdout)
	o.Vars = []string{"gate=" + said[2]}
	var err error
	if o.Environment, err = environmentOf("staging"); err == nil {
		_, err = Deploy(context.Background(), o)
	}
	fmt.Fprintln(os.Stderr, "it was to be killed:", err)
	return 1
}

// process is a program that deploys to demo and waits at a gate in the middle.
type process struct {
	*exec.Cmd
	out  screen
	gate string
}

func startDeployer(t *testing.T, state *gitlabState, api *apiServer) *process {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc to find OpenTofu's process in")
	}
	dir := t.TempDir()
	p := &process{Cmd: exec.Command(os.Args[0]), gate: filepath.Join(dir, "gate")}
	p.Env = append(os.Environ(), "TMPDIR="+dir, "TOFU="+needTofu(t), deployerVariable+"="+strings.Join([]string{state.URL, api.URL, p.gate}, ","))
	p.Stdout, p.Stderr = &p.out, &p.out
	p.WaitDelay = time.Second // what it ran has its output, too
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(p.gate, nil, 0o600) // what still waits there ends
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	p.out.await(t, "Provisioning with 'local-exec'")
	return p
}

// Whoever kills flywheel, as a kernel that is short of memory does, does not kill
// what it runs: that is to end in good order, and not to go on with nobody there
// who sees it.
func TestOpenTofuEndsWithAFlywheelThatIsKilled(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	p := startDeployer(t, state, api)
	tofu := parentOf(t, p.gate)
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, tofu)
	if _, err := os.Stat(p.gate); err == nil {
		t.Fatal("the gate was opened: nothing was interrupted")
	}
	if holder := state.holder(); holder != nil || !state.written() {
		t.Errorf("lock %v, state written: %v", holder, state.written())
	}
	o := job(t, state, api)
	if _, err := Deploy(t.Context(), o); err != nil || !strings.Contains(string(state.state), `"one"`) {
		t.Errorf("the next: %v\n%s", err, shown(o))
	}
}

// With a container, both are killed at once: the lock stays, and so do the files of
// a half-done apply. The next run names the lock, and takes nothing from the files.
func TestTheNextRunAfterBothWereKilled(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	p := startDeployer(t, state, api)
	tofu := parentOf(t, p.gate)
	// Stopped, so that it does not notice in between.
	for _, kill := range []struct {
		process int
		signal  syscall.Signal
	}{{tofu, syscall.SIGSTOP}, {p.Process.Pid, syscall.SIGKILL}, {tofu, syscall.SIGKILL}} {
		if err := syscall.Kill(kill.process, kill.signal); err != nil {
			t.Fatal(err)
		}
	}
	awaitEnd(t, tofu)
	holder := state.holder()
	if holder == nil {
		t.Fatal("it left no lock")
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(p.gate), "flywheel-deploy-*", "deploy.tfplan"))
	if err != nil || len(left) != 1 {
		t.Errorf("it left the plans %v: %v", left, err)
	}

	o := job(t, state, api)
	if _, err := Deploy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "locked by "+holder.Who) || !strings.Contains(err.Error(), "--force-unlock "+holder.ID) {
		t.Errorf("the next does not name the lock: %v", err)
	}
	o.ForceUnlock, o.Vars = holder.ID, []string{"text=later"}
	got, err := Deploy(t.Context(), o)
	if err != nil || state.holder() != nil {
		t.Fatalf("the next does not release it: %v\n%s", err, shown(o))
	}
	if text := string(state.state); got.Plan.Create == 0 || !strings.Contains(text, `"later"`) || strings.Contains(text, p.gate) {
		t.Errorf("the next took something from the dead run: %+v\n%s", got.Plan, text)
	}
	o.ForceUnlock = ""
	if got, err = Deploy(t.Context(), o); err != nil || got.Plan.Changes() != 0 {
		t.Errorf("the one after it: %+v, %v", got.Plan, err)
	}
}

// parentOf is the process that runs the command which has a text among its
// arguments, as soon as it runs.
func parentOf(t *testing.T, text string) int {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc to find OpenTofu's process in")
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range processes {
			line, err := os.ReadFile(file)
			if err != nil || !bytes.Contains(line, []byte(text)) || !bytes.Contains(line, []byte("while")) {
				continue
			}
			_, parent, ok := stat(filepath.Dir(file))
			if !ok {
				continue // it has just ended
			}
			return parent
		}
	}
	t.Fatal("OpenTofu's process was not found")
	return 0
}

// stat is the state of a process, and its parent; not ok for one that is gone.
func stat(dir string) (state string, parent int, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return "", 0, false
	}
	// After the name, in parentheses, come the state and the parent: proc(5).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// awaitEnd waits until a process is no more, or nobody has asked for its status yet.
func awaitEnd(t *testing.T, process int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		state, _, ok := stat("/proc/" + strconv.Itoa(process))
		if !ok || state == "Z" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("OpenTofu (process %d) goes on", process)
		}
	}
}
