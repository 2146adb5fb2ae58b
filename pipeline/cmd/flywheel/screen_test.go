package main

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/spf13/cobra"
)

func TestTheReporterThatHoldsTheScreenIsToldWhatOthersSay(t *testing.T) {
	t.Parallel()
	var out, held bytes.Buffer
	s := &screen{out: &out}
	cmd := &cobra.Command{}
	cmd.SetContext(s.in(t.Context()))
	if screenOf(cmd) != s {
		t.Fatal("a command does not find its screen")
	}
	fmt.Fprint(s, "before ")
	s.hold(&held)
	fmt.Fprint(s, "meanwhile")
	s.hold(nil)
	fmt.Fprint(s, "after")
	if out.String() != "before after" || held.String() != "meanwhile" {
		t.Errorf("%q, and the reporter %q", out.String(), held.String())
	}
}
