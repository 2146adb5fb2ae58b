package setup

import (
	"os"
	"path/filepath"
)

// ExtraPath returns the directories besides PATH where nix may lie, best
// first: those of a single-user installation in home (skipped when empty), of
// a daemon's and of NixOS. A fresh installation puts them into PATH at the
// next login only.
func ExtraPath(home string) []string {
	dirs := []string{"/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin"}
	if home == "" {
		return dirs
	}
	return append([]string{filepath.Join(home, ".nix-profile", "bin")}, dirs...)
}

// CertFile returns the file of CA certificates to pass as NIX_SSL_CERT_FILE to
// a Nix that was started without the login shell's environment, or "" when Nix
// finds one itself or there is none. Nix looks in Debian's place and in root's
// profile only, so on RHEL, Fedora and openSUSE it would trust no server. It
// is for the caller to let an NIX_SSL_CERT_FILE or SSL_CERT_FILE that is set
// stand.
func CertFile(home string) string { return certFile("/", home) }

// certFile looks under root, for the tests.
func certFile(root, home string) string {
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	// FileTransferSettings::getDefaultSSLCertFile in Nix's filetransfer.cc.
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt",
	} {
		if exists(path) {
			return ""
		}
	}
	// The order of Nix's scripts/nix-profile.sh.in, which a login shell runs.
	for _, path := range []string{
		"/etc/ssl/ca-bundle.pem",
		"/etc/ssl/certs/ca-bundle.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		filepath.Join(home, ".nix-profile/etc/ssl/certs/ca-bundle.crt"),
	} {
		if exists(path) {
			return path
		}
	}
	return ""
}
