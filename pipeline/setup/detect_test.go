package setup

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// machine is a file system for Detect under a temporary directory.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	// Not t.TempDir: the path of a Unix socket has a limit of some 100 bytes.
	root, err := os.MkdirTemp("", "setup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return machine{t, root}
}

func (m machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) detect(path string) System {
	m.t.Helper()
	s, err := m.host(path).detect(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m machine) host(path string) host {
	return host{root: m.root, path: path, home: "/home/alice", user: "alice", uid: 1000}
}

// program returns an ELF executable, with or without a loader.
func program(t *testing.T, dynamic bool) string {
	t.Helper()
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(elf.EM_X86_64),
		Version: uint32(elf.EV_CURRENT),
		Phoff:   64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD)}
	if dynamic {
		segment.Type = uint32(elf.PT_INTERP)
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestDetect(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/os-release", readRelease(t, "rocky-10"), 0o644)
	m.write("/etc/yum.repos.d/epel.repo", "[epel]\nname=EPEL\nenabled=1\n", 0o644)
	m.write("/usr/bin/dnf", "#!/bin/sh\n", 0o755)
	m.write("/usr/bin/git", "not a program\n", 0o644)
	m.write("/usr/bin/curl/README", "nor is this\n", 0o644)
	m.write("/opt/bin/sudo", "#!/bin/sh\n", 0o755)
	m.write("/home/alice/.nix-profile/bin/nix", "#!/bin/sh\n", 0o755)
	m.write("/nix/store/x", "", 0o644)
	m.write("/bin/busybox", program(t, false), 0o755)

	want := System{
		ID: "rocky", IDLike: []string{"rhel", "centos", "fedora"}, VersionID: "10.0", EPEL: true,
		User: "alice", Home: "/home/alice", Sudo: true,
		Tools: map[string]bool{
			"dnf": true, "git": false, "curl": false, "tar": false, "xz": false,
			"sha256sum": false, "apt-get": false, "apk": false, "microdnf": false,
		},
		HasNix: true, NixDir: true, NixDirWritable: true, SandboxShell: true,
	}
	if got := m.detect("/usr/bin:/opt/bin"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestDetectBareMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/usr/bin/sudo", "#!/bin/sh\n", 0o755)
	// Directories relative to wherever the build runs are not searched.
	s := m.detect(":usr/bin:.")
	if s.ID != "linux" || s.Sudo || s.HasNix || s.NixDir || s.NixDirWritable || s.Daemon || s.SandboxShell || s.EPEL {
		t.Errorf("got %+v", s)
	}
}

func TestDetectOSReleaseFallback(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/usr/lib/os-release", readRelease(t, "arch"), 0o644)
	if s := m.detect(""); s.ID != "arch" {
		t.Errorf("ID %q, want arch", s.ID)
	}
}

func TestDetectUnreadable(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/etc/os-release/x", "", 0o644) // root, too, fails to read a directory
	_, err := m.host("").detect(t.Context())
	if err == nil || !strings.Contains(err.Error(), "os-release") {
		t.Errorf("got error %v", err)
	}
}

func TestDetectDaemon(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("/nix/var/nix/daemon-socket/x", "", 0o644)
	socket := filepath.Join(m.root, "nix/var/nix/daemon-socket/socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if !m.detect("").Daemon {
		t.Error("daemon not found")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := m.host("").detect(cancelled); err != nil || s.Daemon {
		t.Errorf("cancelled: daemon %v, error %v", s.Daemon, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	// A child that another test forks meanwhile holds the socket until it execs.
	for m.detect("").Daemon {
		if t.Context().Err() != nil {
			t.Fatal("found a daemon behind the socket of a dead one")
		}
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("static", program(t, false), 0o755)
	m.write("dynamic", program(t, true), 0o755)
	m.write("script", "#!/bin/sh\n", 0o755)
	for name, want := range map[string]bool{"static": true, "dynamic": false, "script": false, "missing": false} {
		if got := static(filepath.Join(m.root, name)); got != want {
			t.Errorf("static(%s) = %v", name, got)
		}
	}
}

func TestRepoEnabled(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"":                                      false,
		"[epel]\nenabled=1\n":                   true,
		"[epel]\nenabled = 1\n":                 true,
		"[epel]\nname=EPEL\n":                   true,
		"[epel]\nenabled=0\n":                   false,
		"[epel-testing]\nenabled=1\n":           false,
		"[epel]\nenabled=0\n[x]\nenabled=1\n":   false,
		"[x]\nenabled=0\n[epel]\n#enabled=0\n":  true,
		"[epel]\nenabled=1\n[y]\nenabled=0\n":   true,
		"# [epel]\n[epel-debug]\nenabled = 1\n": false,
	} {
		if got := repoEnabled(text, "epel"); got != want {
			t.Errorf("repoEnabled(%q) = %v", text, got)
		}
	}
}

// The machine the tests run on is as good as any to read.
func TestDetectHere(t *testing.T) {
	t.Parallel()
	s, err := Detect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.ID == "" || s.User == "" || s.Root != (os.Geteuid() == 0) {
		t.Errorf("got %+v", s)
	}
}
