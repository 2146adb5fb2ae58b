package setup

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The check of the plan, run on a file whose digest is known.
func TestInstallerCheck(t *testing.T) {
	t.Parallel()
	steps, err := installerSteps(System{Home: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	check := steps[1]
	args := len(check.Command)
	script := filepath.Join(t.TempDir(), "a script")
	if err := os.WriteFile(script, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	// FIPS 180-2, appendix B.1.
	const digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for _, tt := range []struct {
		digest, script string
		ok             bool
	}{
		{digest, script, true},
		{installerSHA256, script, false},
		{digest, script + ".missing", false},
	} {
		check.Command[args-2], check.Command[args-1] = tt.digest, tt.script
		if err := Run(t.Context(), []Step{check}, io.Discard); (err == nil) != tt.ok {
			t.Errorf("check of %s for %s: error %v", filepath.Base(tt.script), tt.digest, err)
		}
	}
	if len(installerSHA256) != len(digest) || strings.Trim(installerSHA256, "0123456789abcdef") != "" {
		t.Errorf("%q is no SHA-256 digest", installerSHA256)
	}
}
