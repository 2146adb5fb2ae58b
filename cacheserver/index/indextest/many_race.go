//go:build race

package indextest

// many is few: SQLite compiled to Go is slower by far under the race detector, which
// finds no more in more rows.
const many = 4_000
