// Package storepath checks the names of things in a Nix store, by the rules of
// the Nix manual, "Store Path".
package storepath

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// HashLen is the number of characters before the dash.
const HashLen = 32

// maxNameLen is Nix's own limit on what follows the dash.
const maxNameLen = 211

// DefaultDir is where Nix keeps its store unless told otherwise.
const DefaultDir = "/nix/store"

// hashAlphabet is Nix's base 32.
const hashAlphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("invalid store path")

// CheckHash says whether s can be the 32 characters of a store path.
func CheckHash(s string) error {
	if len(s) != HashLen || strings.Trim(s, hashAlphabet) != "" {
		return fmt.Errorf("%w hash %.60q: want %d characters of %s", ErrInvalid, s, HashLen, hashAlphabet)
	}
	return nil
}

// Split takes a base name apart into its hash and its name.
func Split(base string) (hash, name string, err error) {
	hash, name, ok := strings.Cut(base, "-")
	if !ok || CheckHash(hash) != nil {
		return "", "", fmt.Errorf("%w %.300q: want 32 characters of Nix's base 32, a dash, and a name", ErrInvalid, base)
	}
	if err := checkName(name); err != nil {
		return "", "", fmt.Errorf("%w %.300q: %w", ErrInvalid, base, err)
	}
	return hash, name, nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxNameLen {
		return fmt.Errorf("a name has 1 to %d characters", maxNameLen)
	}
	for _, c := range []byte(name) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte("+-._?=", c) >= 0:
		default:
			return fmt.Errorf("%q cannot stand in a name", c)
		}
	}
	// Nix forbids what would be, or look like, "." and "..".
	if first, _, _ := strings.Cut(name, "-"); first == "." || first == ".." {
		return fmt.Errorf("a name cannot begin with %q", first)
	}
	return nil
}

// Base returns the base name of a path that must lie directly in dir.
func Base(dir, full string) (string, error) {
	base, ok := strings.CutPrefix(full, dir+"/")
	if !ok {
		return "", fmt.Errorf("%w %.300q: it does not lie in %s", ErrInvalid, full, dir)
	}
	if _, _, err := Split(base); err != nil {
		return "", err
	}
	return base, nil
}

// Hash returns the 32 characters of a path or a base name that is known to be
// valid.
func Hash(p string) string { return path.Base(p)[:HashLen] }
