package main

import (
	"fmt"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
)

// A user who may not write even the own file is not sent to it.
func TestWhatToDoWhereAFileMayNotBeWritten(t *testing.T) {
	t.Parallel()
	denied := fmt.Errorf("writing nix.conf: %w", nixconf.ErrNotAllowed)
	for _, c := range []struct {
		o    useOptions
		want string
	}{
		{useOptions{system: true}, "run it as root, or with --user"},
		{useOptions{user: true}, "add by hand what --print prints"},
		{useOptions{}, "add by hand what --print prints"}, // of no root: root's is the machine's
	} {
		if err := c.o.instead(denied, nixconf.Cache{}); !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}
