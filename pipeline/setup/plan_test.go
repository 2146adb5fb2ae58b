package setup

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// system returns a container of the release in testdata/os-release: run by
// root, with the given tools and nothing else.
func system(t *testing.T, release string, tools ...string) System {
	t.Helper()
	r := parseOSRelease(readRelease(t, release))
	s := System{
		ID: r.id, IDLike: r.idLike, VersionID: r.versionID,
		User: "root", Home: "/root", Root: true, Tools: map[string]bool{},
	}
	for _, tool := range tools {
		s.Tools[tool] = true
	}
	return s
}

// as returns s as the user alice sees it.
func as(s System, sudo bool) System {
	s.User, s.Home, s.Root, s.Sudo = "alice", "/home/alice", false, sudo
	return s
}

// lines returns the command lines of a plan.
func lines(steps []Step) []string {
	var lines []string
	for _, step := range steps {
		lines = append(lines, step.CommandLine())
	}
	return lines
}

// The commands the plans below are made of.
const (
	aptUpdate  = "DEBIAN_FRONTEND=noninteractive apt-get update"
	aptInstall = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
	sudoApt    = "sudo env DEBIAN_FRONTEND=noninteractive apt-get "
	makeStore  = "install -d -m 0755 -o alice /nix /nix/store /nix/var /nix/var/nix"
	rootStore  = "install -d -m 0755 /nix"
)

// official returns the commands of the official installer for a home directory.
func official(home string) []string {
	script := home + "/.cache/flywheel/nix-2.34.8-install"
	env := ""
	if home == "/root" {
		env = "NIX_CONFIG='build-users-group =' "
	}
	return []string{
		"curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location --create-dirs --output " + script +
			" https://releases.nixos.org/nix/nix-2.34.8/install",
		`sh -c 'echo "$1  $2" | sha256sum -c' sh 96c10e102c88809dd9ec0bee89200c4a51eae4c9f6d8698c26b16788d131e078 ` + script,
		env + "sh " + script + " --no-daemon --yes --no-channel-add --no-modify-profile",
	}
}

func join(parts ...any) []string {
	var all []string
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			all = append(all, part)
		case []string:
			all = append(all, part...)
		}
	}
	return all
}

func TestPlan(t *testing.T) {
	t.Parallel()
	full := []string{"git", "curl", "tar", "xz", "sha256sum"}
	debian := func(release string, tools ...string) System { return system(t, release, append(tools, "apt-get")...) }
	fedora := func(release string, tools ...string) System { return system(t, release, append(tools, "dnf")...) }
	with := func(s System, change func(*System)) System {
		change(&s)
		return s
	}

	for _, tt := range []struct {
		name string
		s    System
		want []string
	}{
		{
			"debian 12", debian("debian-12"),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates git"),
		},
		{
			"debian 13 with git", debian("debian-13", "git"),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates"),
		},
		{
			"debian testing", debian("debian-testing", "git"),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates"),
		},
		{
			"debian 11", debian("debian-11"),
			join(aptUpdate, aptInstall+"git curl ca-certificates tar xz-utils coreutils", rootStore, official("/root")),
		},
		{
			"debian 11 with all the installer runs", debian("debian-11", full...),
			join(rootStore, official("/root")),
		},
		{
			"ubuntu 20.04", debian("ubuntu-20.04", "git", "tar", "sha256sum"),
			join(aptUpdate, aptInstall+"curl ca-certificates xz-utils", rootStore, official("/root")),
		},
		{
			"ubuntu 22.04", debian("ubuntu-22.04", "git"),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates"),
		},
		{
			"ubuntu 24.04", debian("ubuntu-24.04", "git"),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates"),
		},
		{
			"mint, whose releases are not ubuntu's", debian("mint-22", "git", "tar", "xz", "sha256sum"),
			join(aptUpdate, aptInstall+"curl ca-certificates", rootStore, official("/root")),
		},

		{"alpine 3.22", system(t, "alpine-3.22", "apk"), join("apk add --no-cache nix git")},
		{"alpine edge", system(t, "alpine-edge", "apk", "git"), join("apk add --no-cache nix")},
		{
			"alpine 3.19", system(t, "alpine-3.19", "apk", "tar", "sha256sum"),
			join("apk add --no-cache coreutils git curl ca-certificates xz", rootStore, official("/root")),
		},

		{"fedora 43", fedora("fedora-43"), join("dnf install -y nix-core busybox git")},
		{"fedora 43 with apt-get too", fedora("fedora-43", "apt-get", "git"), join("dnf install -y nix-core busybox")},
		{"fedora 43 minimal", system(t, "fedora-43", "microdnf"), join("microdnf install -y nix-core busybox git")},
		{"fedora 41", fedora("fedora-41", full...), join(rootStore, official("/root"))},
		{
			"rocky 9", fedora("rocky-9", "curl", "xz", "sha256sum"),
			join("dnf install -y git tar", rootStore, official("/root")),
		},
		{
			"rocky 9 with EPEL, which has no nix for it", with(fedora("rocky-9", full...), func(s *System) { s.EPEL = true }),
			join(rootStore, official("/root")),
		},
		{"rocky 10", fedora("rocky-10", full...), join(rootStore, official("/root"))},
		{
			"rocky 10 with EPEL", with(fedora("rocky-10", "git"), func(s *System) { s.EPEL = true }),
			join("dnf install -y nix-core busybox"),
		},
		{"rhel 9", fedora("rhel-9", full...), join(rootStore, official("/root"))},
		{
			"rhel 10 with EPEL", with(fedora("rhel-10"), func(s *System) { s.EPEL = true }),
			join("dnf install -y nix-core busybox git"),
		},
		{"arch", system(t, "arch", full...), join(rootStore, official("/root"))},
		{
			"unknown",
			System{
				ID: "linux", User: "root", Home: "/root", Root: true,
				Tools: map[string]bool{"git": true, "curl": true, "tar": true, "xz": true, "sha256sum": true},
			},
			join(rootStore, official("/root")),
		},
		{
			"/nix is there already", with(system(t, "arch", full...), func(s *System) { s.NixDir, s.NixDirWritable = true, true }),
			official("/root"),
		},

		{
			"debian 12, user with sudo", as(debian("debian-12", "git"), true),
			join(sudoApt+"update", sudoApt+"install -y --no-install-recommends nix-bin busybox-static ca-certificates", "sudo "+makeStore),
		},
		{
			"alpine, user with sudo", as(system(t, "alpine-3.22", "apk", "git"), true),
			join("sudo apk add --no-cache nix", "sudo "+makeStore, "sudo chown -R alice /nix"),
		},
		{
			"arch, user with sudo", as(system(t, "arch", full...), true),
			join("sudo "+makeStore, official("/home/alice")),
		},
		{
			"user with a daemon", with(as(debian("debian-12", "git"), true), func(s *System) { s.NixDir, s.Daemon = true, true }),
			join(sudoApt+"update", sudoApt+"install -y --no-install-recommends nix-bin busybox-static ca-certificates"),
		},
		{
			"user who owns /nix", with(as(debian("debian-12", "git"), true), func(s *System) { s.NixDir, s.NixDirWritable = true, true }),
			join(sudoApt+"update", sudoApt+"install -y --no-install-recommends nix-bin busybox-static ca-certificates",
				"mkdir -p /nix/store /nix/var/nix"),
		},
		{
			"user who owns /nix needs no sudo for the installer",
			with(as(system(t, "arch", full...), false), func(s *System) { s.NixDir, s.NixDirWritable = true, true }),
			join("mkdir -p /nix/store /nix/var/nix", official("/home/alice")),
		},

		{"installed", with(debian("debian-12", "git"), func(s *System) { s.HasNix = true }), nil},
		{"installed, user without sudo", with(as(system(t, "arch", "git"), false), func(s *System) { s.HasNix = true }), nil},
		{
			"installed without git", with(debian("debian-12"), func(s *System) { s.HasNix = true }),
			join(aptUpdate, aptInstall+"git"),
		},
		{
			"installed without a sandbox shell",
			with(debian("debian-12", "git"), func(s *System) { s.HasNix, s.NeedsSandboxShell = true, true }),
			join(aptUpdate, aptInstall+"busybox-static"),
		},
		{
			"installed with a sandbox shell",
			with(debian("debian-12", "git"), func(s *System) { s.HasNix, s.NeedsSandboxShell, s.SandboxShell = true, true, true }), nil,
		},
		{
			"a sandbox shell is asked for once", with(debian("debian-12", "git"), func(s *System) { s.NeedsSandboxShell = true }),
			join(aptUpdate, aptInstall+"nix-bin busybox-static ca-certificates"),
		},
		{
			"alpine's nix has its own sandbox shell",
			with(system(t, "alpine-3.22", "apk", "git"), func(s *System) { s.HasNix, s.NeedsSandboxShell = true, true }), nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			steps, err := Plan(tt.s)
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(steps); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
			for _, step := range steps {
				if step.Why == "" || strings.HasSuffix(step.Why, ".") {
					t.Errorf("%s: the reason %q does not fit into a sentence", step.CommandLine(), step.Why)
				}
			}
		})
	}
}

func TestPlanErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		s    System
		want error
		text string
	}{
		{
			"user without sudo", as(system(t, "debian-12", "apt-get", "git"), false), ErrNeedRoot,
			"this needs root, and there is no sudo: have root run `" + aptUpdate + " && " + aptInstall +
				"nix-bin busybox-static ca-certificates && " + makeStore + "`, then run this again",
		},
		{
			"user without sudo, official installer", as(system(t, "arch", "git", "curl", "tar", "xz", "sha256sum"), false), ErrNeedRoot,
			"this needs root, and there is no sudo: have root run `" + makeStore + "`, then run this again",
		},
		{
			"no package manager to bring tools", system(t, "arch", "curl", "tar", "sha256sum"), ErrUnsupported,
			"this system cannot be set up for Nix: install git and xz by hand, then run this again",
		},
		{
			"no package manager to bring a sandbox shell",
			System{ID: "arch", Root: true, HasNix: true, NeedsSandboxShell: true, Tools: map[string]bool{"git": true}},
			ErrUnsupported,
			"this system cannot be set up for Nix: install a static busybox as /bin/busybox by hand, then run this again",
		},
		{
			"package manager of another distribution",
			System{
				ID: "debian", VersionID: "12", Root: true, HasNix: true,
				Tools: map[string]bool{"apk": true},
			},
			ErrUnsupported,
			"this system cannot be set up for Nix: install git by hand, then run this again",
		},
		{
			"no home",
			System{
				ID: "arch", Root: true,
				Tools: map[string]bool{"git": true, "curl": true, "tar": true, "xz": true, "sha256sum": true},
			},
			ErrUnsupported,
			"this system cannot be set up for Nix: the official installer of Nix needs a home directory: set HOME and run this again",
		},
		{
			"store of another user",
			System{
				ID: "debian", VersionID: "12", User: "alice", Home: "/home/alice", Sudo: true, NixDir: true,
				Tools: map[string]bool{"apt-get": true, "git": true},
			},
			ErrStoreTaken,
			"the Nix store in /nix belongs to another user: build as its owner, or have root run `chown -R alice /nix` " +
				"to make it yours, then run this again",
		},
		{
			"a daemon does not help the installer",
			System{
				ID: "arch", User: "alice", Home: "/home/alice", Sudo: true, NixDir: true, Daemon: true,
				Tools: map[string]bool{"git": true, "curl": true, "tar": true, "xz": true, "sha256sum": true},
			},
			ErrStoreTaken,
			"the Nix store in /nix belongs to another user: build as its owner, or have root run `chown -R alice /nix` " +
				"to make it yours, then run this again",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			steps, err := Plan(tt.s)
			if !errors.Is(err, tt.want) || steps != nil {
				t.Fatalf("got %v, %v; want %v", lines(steps), err, tt.want)
			}
			if err.Error() != tt.text {
				t.Errorf("got\n\t%s\nwant\n\t%s", err, tt.text)
			}
		})
	}
}

// Plans are made from the tables of packages.go: what a caller does to one
// must not change the next.
func TestPlanLeavesTablesAlone(t *testing.T) {
	t.Parallel()
	s := system(t, "debian-12")
	s.Tools["apt-get"] = true
	first, err := Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	want := lines(first)
	for _, step := range first {
		clear(step.Command)
		clear(step.Env)
	}
	second, err := Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(second); !reflect.DeepEqual(got, want) {
		t.Errorf("second plan %v, want %v", got, want)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	steps, err := Plan(system(t, "debian-12", "apt-get"))
	if err != nil {
		t.Fatal(err)
	}
	want := "install Nix, a static shell for its sandbox, TLS certificates and Git for git flakes"
	if got := steps[1].Why; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
