package cas

import (
	"testing"
	"testing/synctest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Ten-byte frames, of which a body of 16 MiB holds 335,000, fill a pack's table
// long before its bytes: one with too long a table could not be read back.
func TestAGroupFitsThePacksTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{uploads: make(chan *upload)}
		tiny := &upload{frames: make([]pack.Frame, 335_000), bytes: 3_350_000}
		const uploads = 8
		for range uploads {
			go func() { s.uploads <- tiny }()
		}
		synctest.Wait()
		for taken := 0; taken < uploads; {
			group, entries := s.gather(<-s.uploads), 0
			for _, u := range group {
				entries += len(u.frames)
			}
			if entries > pack.MaxEntries {
				t.Errorf("%d entries in a group of %d uploads, a pack takes %d", entries, len(group), pack.MaxEntries)
			}
			taken += len(group)
		}
	})
}
