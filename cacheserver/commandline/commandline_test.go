package commandline_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/commandline"
)

var errUsage = errors.New("bad usage")

func usage(err error) error { return errors.Join(errUsage, err) }

func TestAWordThatIsNoCommandIsBadUsageAtEveryLevel(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{ // what is wrong; empty for nothing
		"":                   "",
		"group":              "",
		"group list":         "",
		"help":               "",
		"help group":         "",
		"help group list":    "",
		"completion":         "",
		"nonsense":           `unknown command "nonsense" for "tool"`,
		"group nonsense":     `unknown command "nonsense" for "tool group"`,
		"group lst":          `unknown command "lst" for "tool group": did you mean list?`,
		"help nonsense":      `unknown command "nonsense" for "tool"`,
		"help group lst":     `unknown command "lst" for "tool group": did you mean list?`,
		"completion klingon": `unknown command "klingon" for "tool completion"`,
	} {
		root := &cobra.Command{Use: "tool", SilenceErrors: true, SilenceUsage: true}
		group := &cobra.Command{Use: "group"}
		group.AddCommand(&cobra.Command{Use: "list", Run: func(*cobra.Command, []string) {}})
		root.AddCommand(group)
		commandline.Strict(root, usage)
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		err := root.Execute()
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", line, err)
		case want != "" && (!errors.Is(err, errUsage) || !strings.HasSuffix(err.Error(), "\n"+want)):
			t.Errorf("%q: %v; want bad usage: %s", line, err, want)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestLostOutputIsToldAtTheEnd(t *testing.T) {
	t.Parallel()
	o := commandline.Output{To: full{}}
	_, _ = io.WriteString(&o, "x")
	if err := o.Err(); err == nil || err.Error() != "the output is not whole: no space left" {
		t.Error(err)
	}
	o = commandline.Output{To: io.Discard}
	_, _ = io.WriteString(&o, "x")
	if err := o.Err(); err != nil {
		t.Error(err)
	}
}
