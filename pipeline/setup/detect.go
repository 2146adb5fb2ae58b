package setup

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// System is what decides how Nix is installed on a machine. Detect fills in
// all of it but NeedsSandboxShell; Plan looks at nothing else.
type System struct {
	ID        string   // distribution, as in os-release(5): "debian", "rocky"
	IDLike    []string // distributions it derives from, closest first
	VersionID string   // its release: "12", "22.04"; empty where there are none
	EPEL      bool     // the EPEL repository is configured and enabled

	User string // who runs this, by name, or by number where there is none
	Home string // that user's home directory; empty when unknown
	Root bool   // that user is root
	Sudo bool   // sudo is in PATH

	// Tools are the programs found in PATH, of those that can matter here:
	// package managers, git, and what the official installer runs.
	Tools map[string]bool

	HasNix         bool // nix is in PATH or in one of ExtraPath's directories
	NixDir         bool // /nix exists
	NixDirWritable bool // /nix exists and User may write to it
	Daemon         bool // a nix-daemon answers User, so /nix need not be User's

	// SandboxShell says that /bin/busybox is there and static, so that a
	// sandbox which holds nothing else can run it as /bin/sh.
	SandboxShell bool

	// NeedsSandboxShell is for the caller to set, when the Nix that is there
	// was built without a shell for its sandbox (Debian's is: its
	// `nix show-config` lists no /bin/sh in sandbox-paths). Detect cannot
	// tell without running Nix.
	NeedsSandboxShell bool
}

// knownTools are the programs Detect looks for: the package managers of
// managers, git, and installerTools.
func knownTools() []string {
	tools := append([]string{"git"}, installerTools...)
	for _, m := range managers {
		tools = append(tools, m.tool)
	}
	return tools
}

// Detect reads what Plan needs to know about this machine: os-release(5),
// PATH, the user and /nix. It changes nothing and runs no program, but systemd
// may start the nix-daemon it listens for when Detect asks whether one answers;
// ctx bounds that question. It fails with ErrUnsupported on anything but Linux,
// and when a file that exists cannot be read.
func Detect(ctx context.Context) (System, error) {
	if runtime.GOOS != "linux" {
		return System{}, fmt.Errorf("%w: Nix is installed on Linux only and this is %s: see https://nixos.org/download",
			ErrUnsupported, runtime.GOOS)
	}
	h := host{root: "/", path: os.Getenv("PATH"), uid: os.Geteuid()}
	h.home, _ = os.UserHomeDir() // unset HOME matters to the installer alone: Plan says so
	h.user = strconv.Itoa(h.uid)
	if u, err := user.LookupId(h.user); err == nil {
		h.user = u.Username // else a container's bare number, which install(1) takes as well
	}
	return h.detect(ctx)
}

// host is where Detect looks; root stands before every path, for the tests.
type host struct {
	root, path, home, user string
	uid                    int
}

func (h host) detect(ctx context.Context) (System, error) {
	release, err := h.osRelease()
	if err != nil {
		return System{}, err
	}
	epel, err := h.read("/etc/yum.repos.d/epel.repo")
	if err != nil {
		return System{}, err
	}
	nixDir, err := h.exists("/nix")
	if err != nil {
		return System{}, err
	}
	dirs := filepath.SplitList(h.path)
	s := System{
		ID:        release.id,
		IDLike:    release.idLike,
		VersionID: release.versionID,
		EPEL:      repoEnabled(epel, "epel"),

		User: h.user,
		Home: h.home,
		Root: h.uid == 0,
		Sudo: h.find("sudo", dirs),

		Tools: make(map[string]bool),

		HasNix:         h.find("nix", slices.Concat(dirs, ExtraPath(h.home))),
		NixDir:         nixDir,
		NixDirWritable: nixDir && syscall.Access(h.at("/nix"), accessWrite) == nil,
		Daemon:         h.daemon(ctx),
		SandboxShell:   static(h.at(busybox)),
	}
	for _, tool := range knownTools() {
		s.Tools[tool] = h.find(tool, dirs)
	}
	return s, nil
}

// busybox is where a static shell lies that a sandbox can hold by itself.
const busybox = "/bin/busybox"

// SandboxShell returns a static program that can serve a sandbox as /bin/sh, or
// "" when this machine has none.
func SandboxShell() string {
	if static(busybox) {
		return busybox
	}
	return ""
}

// accessWrite is W_OK of access(2), which package syscall does not name.
const accessWrite = 2

func (h host) at(path string) string { return filepath.Join(h.root, path) }

// osRelease reads the first of the two places os-release(5) names. A machine
// with neither is an unknown Linux, for which there is the official installer.
func (h host) osRelease() (osRelease, error) {
	text, err := h.read("/etc/os-release")
	if err == nil && text == "" {
		text, err = h.read("/usr/lib/os-release")
	}
	return parseOSRelease(text), err
}

// read returns the text of a file, "" when there is none.
func (h host) read(path string) (string, error) {
	text, err := os.ReadFile(h.at(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading what system this is: %w", err)
	}
	return string(text), nil
}

func (h host) exists(path string) (bool, error) {
	_, err := os.Stat(h.at(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for %s: %w", path, err)
	}
	return err == nil, nil
}

// find reports whether one of dirs holds the program name. Relative
// directories do not count, as for exec.LookPath.
func (h host) find(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		if !filepath.IsAbs(dir) {
			return false
		}
		info, err := os.Stat(h.at(filepath.Join(dir, name)))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

// dialTimeout bounds the wait for nix-daemon to accept; a local socket
// answers at once unless its queue is full.
const dialTimeout = time.Second

// daemon reports whether this user can reach a nix-daemon. Only connecting
// tells: a container has the socket of the image it was made from without the
// daemon, and Debian admits the group nix-users alone.
func (h host) daemon(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", h.at("/nix/var/nix/daemon-socket/socket"))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written that could be lost
	return true
}

// static reports whether path is an ELF program that asks for no loader: a
// dynamic one would not start in a sandbox without its libraries.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// repoEnabled reports whether the text of a yum repository file has the
// repository id and leaves it enabled, which is the default of yum.conf(5).
func repoEnabled(text, id string) bool {
	here, enabled := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			here = line == "["+id+"]"
			enabled = enabled || here
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		if here && strings.TrimSpace(name) == "enabled" {
			enabled = strings.TrimSpace(value) == "1"
		}
	}
	return enabled
}
