package commandline

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionsAreSaidAsGoStampsThem(t *testing.T) {
	t.Parallel()
	for stamped, want := range map[string]string{
		"v1.2.3":  "v1.2.3 (go9.9, ",
		"(devel)": "unknown, built without version control (go9.9, ",
		"":        "unknown, built without version control (go9.9, ",
	} {
		info := &debug.BuildInfo{GoVersion: "go9.9", Main: debug.Module{Version: stamped}}
		if got := versionOf(info); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", stamped, got, want)
		}
	}
}
