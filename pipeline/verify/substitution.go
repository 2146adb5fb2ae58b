package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// nixTime bounds one substitution by Nix.
const nixTime = time.Minute

// nix lets the real Nix substitute the path into an empty store, with nothing
// configured but the expected keys.
func (c *cache) nix(ctx context.Context) (string, error) {
	if c.nixProgram == "" {
		return "", fmt.Errorf("%w: Nix is not installed; the checks above did its part", check.ErrSkip)
	}
	dir, err := os.MkdirTemp("", "flywheel-verify-")
	if err != nil {
		return "", fmt.Errorf("making a store: %w", err)
	}
	defer removeStore(dir)
	// Not /tmp, which Nix refuses as a part of a store's path where it is a link.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", fmt.Errorf("making a store: %w", err)
	}
	base := *c.base
	base.User = nil
	args := []string{
		"--extra-experimental-features", "nix-command", "copy",
		"--from", base.String(), "--to", "local?root=" + dir, c.trip.info.StorePath,
		"--option", "substituters", "",
		"--option", "trusted-public-keys", strings.Join(c.trip.keys, " "),
		"--option", "require-sigs", "true",
		"--option", "connect-timeout", "10",
	}
	if netrc := c.netrc(); netrc != "" {
		file := filepath.Join(dir, "netrc")
		if err := os.WriteFile(file, []byte(netrc), 0o600); err != nil {
			return "", fmt.Errorf("writing the token for Nix: %w", err)
		}
		args = append(args, "--option", "netrc-file", file)
	}
	cmd := exec.CommandContext(ctx, c.nixProgram, args...) // #nosec G204 -- Nix, as PATH has it
	cmd.Env = nixEnviron(os.Environ(), dir, c.storeDir)
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", &fault{reason: "Nix came to no end in " + nixTime.String(), look: lookAtPods}
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return "", fmt.Errorf("%w: Nix cannot be run: %w", check.ErrSkip, err)
		}
		return "", &fault{reason: "Nix: " + nixError(said.String()), look: "nix.conf's trusted-public-keys and substituters; then " + lookAtKeys, final: true}
	}
	// Below a root, the store is where it is in every Nix, or at its own path.
	name := path.Base(c.trip.info.StorePath)
	for _, store := range []string{"nix/store", c.storeDir} {
		var dumped bytes.Buffer
		if nar.Dump(&dumped, filepath.Join(dir, store, name)) == nil {
			if digest.Of(dumped.Bytes()) != c.trip.info.NarHash {
				return "", &fault{reason: "Nix substituted something else", look: lookAtFsck, final: true}
			}
			return "substituted into an empty store by " + c.nixProgram, nil
		}
	}
	return "", &fault{reason: "Nix substituted nothing", look: lookAtKeys, final: true}
}

// netrc gives Nix the token, or the password of the URL.
func (c *cache) netrc() string {
	password, login := c.token, "flywheel"
	if user := c.base.User; password == "" && user != nil {
		password, _ = user.Password()
		login = user.Username()
	}
	if password == "" {
		return ""
	}
	return fmt.Sprintf("machine %s\nlogin %s\npassword %s\n", c.base.Hostname(), login, password)
}

// nixEnviron is environ without what says where and how Nix works on this
// machine: its state is below dir.
func nixEnviron(environ []string, dir, storeDir string) []string {
	kept := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "HOME" || strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "NIX_") && name != "NIX_SSL_CERT_FILE"
	})
	return append(kept, "HOME="+dir, "NIX_CONF_DIR="+dir, "NIX_STORE_DIR="+storeDir,
		"NIX_STATE_DIR="+filepath.Join(dir, "var"), "NIX_LOG_DIR="+filepath.Join(dir, "log"))
}

// nixError is the line that says why, among those that Nix wrote.
func nixError(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line
		if rest, ok := strings.CutPrefix(line, "error: "); ok {
			return oneLine(rest)
		}
	}
	return oneLine(last)
}

// removeStore removes directories that are read-only, as those of a store are.
func removeStore(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) // #nosec G302 -- a directory, to be removed
		}
		return nil
	})
	_ = os.RemoveAll(dir) // what is left of it is in the temporary directory
}
