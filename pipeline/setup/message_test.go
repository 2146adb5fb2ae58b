package setup

import (
	"strings"
	"testing"
)

func TestMissingMessage(t *testing.T) {
	t.Parallel()
	debian := system(t, "debian-12", "apt-get", "git")
	installed := debian
	installed.HasNix = true
	apt := "nix is not installed: run `flywheel build --setup …` to install it with apt-get (nix-bin), or run `" +
		aptUpdate + " && " + aptInstall + "nix-bin busybox-static ca-certificates` yourself"

	for _, tt := range []struct {
		name string
		s    System
		want string
	}{
		{"package", debian, apt},
		{"the caller knows better than HasNix", installed, apt},
		{
			"official installer", as(system(t, "arch", "git", "curl", "tar", "xz", "sha256sum"), true),
			"nix is not installed: run `flywheel build --setup …` to install it with the official installer of Nix 2.34.8, or run `sudo " +
				makeStore + " && " + strings.Join(official("/home/alice"), " && ") + "` yourself",
		},
		{
			"impossible", system(t, "arch", "git", "curl", "tar", "sha256sum"),
			"nix is not installed, nor can `flywheel build --setup …` install it: " +
				"this system cannot be set up for Nix: install xz by hand, then run this again",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := MissingMessage(tt.s)
			if got != tt.want {
				t.Errorf("got\n\t%s\nwant\n\t%s", got, tt.want)
			}
			if strings.ContainsAny(got, "\n") {
				t.Error("more than one line")
			}
		})
	}
}
