//go:build !race

package indextest

// many is more rows than a statement may have variables.
const many = 70_000
