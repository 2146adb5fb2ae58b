package check_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

func one(name string, err error) check.Check {
	return check.Check{Name: name, Run: func(_ context.Context, out io.Writer) error {
		_, _ = fmt.Fprintf(out, "words of %s\n", name)
		return err
	}}
}

func TestAllChecksRunEvenWhenOneFails(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	results := check.Run(t.Context(), &out, []check.Check{
		one("first", errors.New("a fault | of\ntwo lines")),
		one("second", fmt.Errorf("%w: there is no flake.nix", check.ErrSkip)),
		one("third", nil),
	})
	want := []check.Result{
		{Name: "first", Outcome: check.Failed, Message: "a fault | of\ntwo lines"},
		{Name: "second", Outcome: check.Skipped, Message: "there is no flake.nix"},
		{Name: "third", Outcome: check.Passed},
	}
	for i, w := range want {
		got := results[i]
		got.Seconds = 0
		if got != w {
			t.Errorf("result %d is %+v, want %+v", i, got, w)
		}
		if !strings.Contains(out.String(), "words of "+w.Name) {
			t.Errorf("what %s printed is lost", w.Name)
		}
	}
	if results.OK() || !results[1:].OK() {
		t.Error("OK is to be false because of the first, and of nothing else")
	}
	if md := results.Markdown(); strings.Count(md, "\n") != 5 || !strings.Contains(md, `a fault \| of |`) {
		t.Errorf("the table is broken:\n%s", md)
	}
	var table strings.Builder
	results.Table(&table)
	if got := strings.Count(table.String(), "\n"); got != 3 {
		t.Errorf("the table has %d lines:\n%s", got, table.String())
	}
}

func TestChecksNotBegunAreFailed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancels := check.Check{Name: "cancels", Run: func(context.Context, io.Writer) error { cancel(errors.New("a signal")); return nil }}
	never := check.Check{Name: "never", Run: func(context.Context, io.Writer) error {
		t.Error("a check was begun after the end")
		return nil
	}}
	results := check.Run(ctx, io.Discard, []check.Check{cancels, never})
	if results[0].Outcome != check.Passed || results[1].Outcome != check.Failed || results[1].Message != "not begun: a signal" {
		t.Errorf("got %+v", results)
	}
}
