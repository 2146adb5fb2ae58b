// Package nar writes and reads Nix archives: a file tree as one stream of
// bytes, the same for the same tree, as Nix hashes and ships it.
//
// The grammar is that of the Nix manual, "Nix Archive (NAR) format". Both
// directions stream: neither holds more than one buffer, whatever the size of
// the tree.
package nar

import "errors"

// Limits on what Read accepts. Names and targets are the kernel's own limits;
// the depth keeps a hostile archive from exhausting the stack.
const (
	MaxNameLen   = 255
	MaxTargetLen = 4095
	MaxDepth     = 512
)

const magic = "nix-archive-1"

// ErrMalformed is wrapped by every error that Read returns for bytes that are
// not a canonical archive.
var ErrMalformed = errors.New("not a canonical NAR")

// Type tells what a node is.
type Type int

// The three kinds of node that an archive can hold.
const (
	Regular Type = iota
	Directory
	Symlink
)

// Node is one file, directory or symlink of an archive.
type Node struct {
	Path       string // "" for the root, else slash-separated, without a leading slash
	Type       Type
	Executable bool
	Size       int64  // of a regular file, in bytes
	Offset     int64  // of a regular file's contents in the archive, in bytes
	Target     string // of a symlink
}

func padding(n int64) int64 { return (8 - n%8) % 8 }
