// Package chaos tests the cache server as a whole against what happens to
// servers: being killed, losing their disk's room, their storage or their
// database, and bits that flip. It runs the real command as processes of their
// own, pushes to them with the real client, and keeps a ledger of what was
// acknowledged.
package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
)

// roundsVariable, set in the environment, is how many rounds of kills each test
// with kills makes.
const roundsVariable = "CHAOS_ROUNDS"

// command is what is tested.
const command = "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cmd/cacheserver"

// binDir is where the command is built to, once a run.
var binDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "chaos-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(binDir) }()
	return m.Run()
}

var errNoGo = errors.New("the go command, which builds the server, is not installed")

var build = sync.OnceValues(func() (string, error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return "", errNoGo
	}
	file := filepath.Join(binDir, "cacheserver")
	args := []string{"build", "-buildvcs=false", "-o", file}
	if raceDetected() {
		args = append(args, "-race")
	}
	out, err := exec.Command(goTool, append(args, command)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the server: %w\n%s", err, out)
	}
	return file, nil
})

// raceDetected is true where the tests are built with the race detector: so is
// the server then.
func raceDetected() bool {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// program returns the server's program.
func program(t testing.TB) string {
	t.Helper()
	file, err := build()
	if errors.Is(err, errNoGo) {
		t.Skip(err)
	}
	must(t, err)
	return file
}

// rounds is how many rounds of kills to make.
func rounds(t testing.TB, few int) int {
	t.Helper()
	text := os.Getenv(roundsVariable)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number of rounds", roundsVariable, text)
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
