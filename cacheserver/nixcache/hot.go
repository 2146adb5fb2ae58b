package nixcache

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// hot keeps the answers used last, each for hotFor.
type hot[K comparable, V any] struct {
	entries *lru.Cache[K, hotEntry[V]]
}

type hotEntry[V any] struct {
	value V
	since time.Time
}

func newHot[K comparable, V any](size int) hot[K, V] {
	entries, err := lru.New[K, hotEntry[V]](size)
	if err != nil {
		panic(err) // only a size below 1 is an error
	}
	return hot[K, V]{entries}
}

func (h hot[K, V]) Get(key K) (V, bool) {
	e, ok := h.entries.Get(key)
	if ok && time.Since(e.since) > hotFor {
		ok = false
	}
	return e.value, ok
}

// Stale returns what was kept, however old: better than no answer while the
// index cannot be reached.
func (h hot[K, V]) Stale(key K) (V, bool) {
	e, ok := h.entries.Get(key)
	return e.value, ok
}

func (h hot[K, V]) Add(key K, value V) {
	h.entries.Add(key, hotEntry[V]{value, time.Now()})
}

func (h hot[K, V]) Remove(key K) { h.entries.Remove(key) }

func (h hot[K, V]) Clear() { h.entries.Purge() }
