package setup

import (
	"slices"
	"testing"
)

func TestExtraPath(t *testing.T) {
	t.Parallel()
	shared := []string{"/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin"}
	for home, want := range map[string][]string{
		"":            shared,
		"/home/alice": append([]string{"/home/alice/.nix-profile/bin"}, shared...),
	} {
		if got := ExtraPath(home); !slices.Equal(got, want) {
			t.Errorf("ExtraPath(%q) = %v, want %v", home, got, want)
		}
	}
}

func TestCertFile(t *testing.T) {
	t.Parallel()
	const home = "/home/alice"
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"none", nil, ""},
		{"debian", []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-bundle.crt"}, ""},
		{"root's profile", []string{"/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt", "/etc/pki/tls/certs/ca-bundle.crt"}, ""},
		{"opensuse", []string{"/etc/ssl/ca-bundle.pem"}, "/etc/ssl/ca-bundle.pem"},
		{"rocky 9", []string{"/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-bundle.crt"}, "/etc/ssl/certs/ca-bundle.crt"},
		{
			"what the installer brings",
			[]string{home + "/.nix-profile/etc/ssl/certs/ca-bundle.crt"},
			home + "/.nix-profile/etc/ssl/certs/ca-bundle.crt",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			for _, file := range tt.files {
				m.write(file, "", 0o644)
			}
			if got := certFile(m.root, home); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
