package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
)

// patience bounds what the scripts wait for on a busy machine.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	testscript.Main(withServer{m}, map[string]func(){"flywheel": main})
}

// withServer puts cacheserver, whose package cannot be imported, into PATH.
type withServer struct{ *testing.M }

func (m withServer) Run() int {
	dir, err := os.MkdirTemp("", "flywheel-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // of no use to anybody, it harms nobody
	build := exec.Command("go", "build", "-o", dir, "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cmd/cacheserver")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "building cacheserver: %v\n", err)
		return 1
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+string(filepath.ListSeparator)+dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

// The scripts run flywheel and nix as programs. Beside testscript's own commands
// they have those of package files script_*_test.go. Each has a Nix store of its
// own under $WORK/nix, an empty home, and step.nix (nixtest.Step) to build with.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup:              setUpScript,
		Condition:          scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"begin":        cmdBegin,
			"await":        cmdAwait,
			"signal":       cmdSignal,
			"end":          cmdEnd,
			"status":       cmdStatus,
			"gate":         cmdGate,
			"hear":         cmdHear,
			"tell":         cmdTell,
			"output":       cmdOutput,
			"read":         cmdRead,
			"report":       cmdReport,
			"cache":        cmdCache,
			"files":        cmdFiles,
			"fault":        cmdFault,
			"down":         cmdDown,
			"pushed":       cmdPushed,
			"held":         cmdHeld,
			"served":       cmdServed,
			"await-served": cmdAwaitServed,
			"gitlab":       cmdGitLab,
		},
	})
}

func setUpScript(env *testscript.Env) error {
	vars, err := nixtest.Environ(filepath.Join(env.WorkDir, "nix"))
	if err != nil {
		return err
	}
	env.Vars = append(env.Vars, vars...)
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		return err
	}
	flywheel, err := exec.LookPath("flywheel")
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", examples)
	env.Setenv("FLYWHEEL", filepath.Dir(flywheel)) // for a PATH with little else
	env.Setenv("DATA", filepath.Join(env.Getenv("XDG_CACHE_HOME"), "attic-cache"))
	if env.Getenv("GORACE") == "" {
		env.Setenv("GORACE", "atexit_sleep_ms=0") // instead of a second at the end of each run
	}
	s := newState()
	env.Values[stateKey{}] = s
	env.Defer(s.close)
	return os.WriteFile(filepath.Join(env.WorkDir, "step.nix"), []byte(nixtest.Step), 0o644)
}

// scriptCondition knows, beside testscript's own:
//
//	nix          nix is installed
//	nix-beside   it is found whatever PATH says
//	debian       this is a Debian whose package nix-bin --setup installs, or Ubuntu
//	two-users    this is root, who can start nix-daemon and be nobody
//	mount        a file system can be mounted, in a namespace of its own
func scriptCondition(name string) (bool, error) {
	switch name {
	case "nix":
		_, err := exec.LookPath("nix")
		return err == nil, nil
	case "nix-beside":
		for _, dir := range setup.ExtraPath("") {
			if _, err := exec.LookPath(filepath.Join(dir, "nix")); err == nil {
				return true, nil
			}
		}
		return false, nil
	case "debian":
		text, err := os.ReadFile("/etc/os-release")
		return err == nil && strings.Contains("\n"+string(text), "\nID=debian\n") && os.Geteuid() == 0, nil
	case "two-users":
		_, daemon := exec.LookPath("nix-daemon")
		_, setpriv := exec.LookPath("setpriv")
		return os.Geteuid() == 0 && daemon == nil && setpriv == nil, nil
	case "mount":
		return exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "none", os.TempDir()).Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
