package setup

import "slices"

// pkg is a package of a distribution and what it is wanted for.
type pkg struct{ name, what string }

// manager is a package manager and the names its distributions use.
type manager struct {
	tool     string   // its program
	families []string // os-release IDs of the distributions it belongs to
	env      []string // for every command
	refresh  []string // fetches the package lists; nil where install does
	install  []string // installs the packages named after it, asking nothing

	nix          []pkg            // Nix without a daemon, and what it needs to build
	ownsStore    bool             // nix's package puts directories of root's under /nix
	sandboxShell pkg              // a static /bin/busybox; zero where every build of Nix has its own
	tools        map[string][]pkg // what brings a missing tool
	installer    []pkg            // what the official installer needs besides installerTools
}

var (
	pkgGit   = pkg{"git", "Git for git flakes"}
	pkgCurl  = pkg{"curl", "curl"}
	pkgTar   = pkg{"tar", "tar"}
	pkgXz    = pkg{"xz", "xz"}
	pkgCerts = pkg{"ca-certificates", "TLS certificates"}
)

// managers are the package managers Nix can be installed with. The packages
// bring the nix program alone: a daemon would want a service manager, which
// containers lack, and users in its group, who would have to log in again.
var managers = []manager{
	{
		tool:     "apt-get",
		families: []string{"debian", "ubuntu"},
		env:      []string{"DEBIAN_FRONTEND=noninteractive"},
		refresh:  []string{"apt-get", "update"},
		install:  []string{"apt-get", "install", "-y", "--no-install-recommends"},
		// nix-bin recommends nix-setup-systemd, the daemon, and knows no shell
		// for its sandbox; libcurl recommends the certificates.
		nix:          []pkg{{"nix-bin", "Nix"}, {"busybox-static", "a static shell for its sandbox"}, pkgCerts},
		sandboxShell: pkg{"busybox-static", "a static shell for the sandbox of Nix"},
		tools: map[string][]pkg{
			"git": {pkgGit}, "curl": {pkgCurl, pkgCerts}, "tar": {pkgTar}, "xz": {{"xz-utils", "xz"}},
			"sha256sum": {{"coreutils", "sha256sum"}},
		},
	},
	{
		tool:     "apk",
		families: []string{"alpine"},
		install:  []string{"apk", "add", "--no-cache"},
		// A static busybox is built into it: -Dlibstore:embedded-sandbox-shell
		// in aports' community/nix/APKBUILD.
		nix:       []pkg{{"nix", "Nix"}},
		ownsStore: true, // its APKBUILD of Nix 2.22 makes them, that of 2.31 does not
		tools: map[string][]pkg{
			"git": {pkgGit}, "curl": {pkgCurl, pkgCerts}, "tar": {pkgTar}, "xz": {pkgXz},
		},
		// Upstream's script runs `cp --preserve`, which busybox has not.
		installer: []pkg{{"coreutils", "GNU cp"}},
	},
	dnf("dnf"),
	dnf("microdnf"), // the one in minimal images
}

// dnf describes dnf and its stand-in microdnf, which take the same arguments.
func dnf(tool string) manager {
	return manager{
		tool:     tool,
		families: []string{"fedora", "rhel", "centos"},
		install:  []string{tool, "install", "-y"},
		// nix-core is nix alone; the package nix adds a daemon nobody starts.
		// Its sandbox shell is the busybox it recommends, and images turn
		// recommendations off.
		nix:          []pkg{{"nix-core", "Nix"}, {"busybox", "a static shell for its sandbox"}},
		sandboxShell: pkg{"busybox", "a static shell for the sandbox of Nix"},
		tools: map[string][]pkg{
			"git": {pkgGit}, "curl": {pkgCurl, pkgCerts}, "tar": {pkgTar}, "xz": {pkgXz},
			"sha256sum": {{"coreutils", "sha256sum"}},
		},
	}
}

// manager returns the package manager of this distribution, or nil. One that
// merely happens to be installed is not it: Fedora has an apt-get.
func (s System) manager() *manager {
	for _, id := range append([]string{s.ID}, s.IDLike...) {
		for i := range managers {
			if m := &managers[i]; s.Tools[m.tool] && slices.Contains(m.families, id) {
				return m
			}
		}
	}
	return nil
}

// packaged reports whether this release of the distribution has a Nix that
// knows flakes (2.4 or later). Derived distributions number their releases
// otherwise, so only those listed count. Sources, as of autumn 2026:
//
//   - Debian: 11 has nix-bin 2.3.7, 12 has 2.8.0 (packages.debian.org).
//     Testing and unstable have no VERSION_ID.
//   - Ubuntu: nix-bin from 22.04 on (packages.ubuntu.com).
//   - Alpine: community from 3.20 on, testing before (pkgs.alpinelinux.org).
//   - Fedora: 42 on (packages.fedoraproject.org/pkgs/nix).
//   - RHEL and its rebuilds: EPEL 10 has it, EPEL 9 has not (same page). EPEL
//     counts when the machine's owner has enabled it: adding a repository is
//     more than --setup is asked for.
func (s System) packaged() bool {
	switch s.ID {
	case "debian":
		return s.VersionID == "" || atLeast(s.VersionID, 12)
	case "ubuntu":
		return atLeast(s.VersionID, 22, 4)
	case "alpine":
		return atLeast(s.VersionID, 3, 20)
	case "fedora":
		return atLeast(s.VersionID, 42)
	}
	enterprise := s.ID == "rhel" || slices.Contains(s.IDLike, "rhel")
	return enterprise && s.EPEL && atLeast(s.VersionID, 10)
}
