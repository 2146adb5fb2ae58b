package setup

import (
	"fmt"
	"path/filepath"
)

// InstallerVersion is the release of Nix the official installer brings where
// the distribution has none.
const InstallerVersion = "2.34.8"

// installerURL is where upstream keeps the installer of one release (Nix
// manual, "Installing a pinned Nix version from a URL").
const installerURL = "https://releases.nixos.org/nix/nix-" + InstallerVersion + "/install"

// installerSHA256 is the digest of the script at installerURL. The script
// holds the digest of each platform's archive, so this one pins Nix itself.
// Upstream publishes it beside the script, as install.sha256. It stands here as
// several public repositories record it for their own downloads.
const installerSHA256 = "96c10e102c88809dd9ec0bee89200c4a51eae4c9f6d8698c26b16788d131e078"

// installerTools are the programs the installer, and the fetching of it, run
// that an image may lack (packaging/installer/install.in of Nix 2.34.8).
var installerTools = []string{"curl", "tar", "xz", "sha256sum"}

// RootConfig is the line of nix.conf(5) a Nix without a daemon needs when root
// runs it on a machine without the group nixbld: by default root's builds run
// as that group's users, and fail without it. (NixOS/nix#1559 has the same
// remedy.) Pass it in NIX_CONFIG, or as the option --option build-users-group "".
const RootConfig = "build-users-group ="

// installerSteps fetches, checks and runs the official installer for one user
// without a daemon. None of it needs root once /nix is there. The script is
// kept in the user's own cache, where no other user can change it between the
// check and the run. It leaves shell profiles as they are and subscribes to no
// channel, which flakes do without: ExtraPath says where nix then lies.
func installerSteps(s System) ([]Step, error) {
	if s.Home == "" {
		return nil, fmt.Errorf("%w: the official installer of Nix needs a home directory: set HOME and run this again",
			ErrUnsupported)
	}
	script := filepath.Join(s.Home, ".cache", "flywheel", "nix-"+InstallerVersion+"-install")
	install := Step{
		Why:     "install Nix " + InstallerVersion + " for this user, without a daemon",
		Command: []string{"sh", script, "--no-daemon", "--yes", "--no-channel-add", "--no-modify-profile"},
	}
	if s.Root {
		install.Env = []string{"NIX_CONFIG=" + RootConfig}
	}
	return []Step{
		{
			Why: "download the official installer of Nix " + InstallerVersion,
			Command: []string{
				"curl", "--proto", "=https", "--tlsv1.2", "--fail", "--silent", "--show-error",
				"--location", "--create-dirs", "--output", script, installerURL,
			},
		},
		{
			Why:     "check that the installer is the one flywheel knows",
			Command: []string{"sh", "-c", `echo "$1  $2" | sha256sum -c`, "sh", installerSHA256, script},
		},
		install,
	}, nil
}
