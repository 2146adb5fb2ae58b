package nixconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// SystemFile returns the nix.conf of the whole machine, which the daemon reads.
func SystemFile() string {
	if dir := os.Getenv("NIX_CONF_DIR"); dir != "" {
		return filepath.Join(dir, "nix.conf")
	}
	return "/etc/nix/nix.conf"
}

// UserFile returns the nix.conf of this user that counts most.
func UserFile() (string, error) {
	if files := os.Getenv("NIX_USER_CONF_FILES"); files != "" {
		first, _, _ := strings.Cut(files, ":")
		return first, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set: there is no place for a user's nix.conf")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "nix", "nix.conf"), nil
}
