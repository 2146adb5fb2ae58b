package nix

import "golang.org/x/sys/unix"

// writable says whether this process may write to a directory.
func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }
