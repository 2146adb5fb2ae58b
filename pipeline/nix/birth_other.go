//go:build !linux

package nix

import "time"

// lifetime is unknown: it is told for Linux only.
func lifetime(string) (born, changed time.Time, ok bool) { return born, changed, false }
