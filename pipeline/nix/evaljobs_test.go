package nix

import (
	"errors"
	"strings"
	"testing"
)

func TestEachJobIsToldAsItsLineComes(t *testing.T) {
	t.Parallel()
	const lines = `{"attr":"app","attrPath":["app"],"drvPath":"/nix/store/x-app.drv","name":"app","outputs":{"out":"/nix/store/y-app","dev":"/nix/store/z-app-dev"},"system":"x86_64-linux"}

{"attr":"\"python3.11\"","attrPath":["python3.11"],"drvPath":"/nix/store/x-py.drv","outputs":{"out":null}}
{"attr":"old","drvPath":"/nix/store/x-old.drv","name":"old"}
{"attr":"bad","attrPath":["bad"],"error":"\u001b[31merror:\u001b[0m it is broken","fatal":false}
`
	want := []string{
		".#packages.s.app /nix/store/x-app.drv /nix/store/z-app-dev,/nix/store/y-app",
		`.#packages.s."python3.11" /nix/store/x-py.drv `,
		".#packages.s.old /nix/store/x-old.drv ",
		".#packages.s.bad error: it is broken",
	}
	var got []string
	err := readJobs(strings.NewReader(lines), ".#packages.s", func(j Job) {
		text := j.Derivation.Path + " " + strings.Join(j.Derivation.Outputs, ",")
		var failed *BuildError
		if errors.As(j.Err, &failed) {
			text = failed.Message
		}
		got = append(got, j.Installable+" "+text)
	})
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzJobs(f *testing.F) {
	f.Add(`{"attr":"app","drvPath":"/nix/store/x-app.drv","outputs":{"out":"/nix/store/y-app"}}`)
	f.Add(`{"attr":"bad","error":"no"}`)
	f.Add("warning: not JSON")
	f.Fuzz(func(t *testing.T, text string) {
		err := readJobs(strings.NewReader(text), "set", func(j Job) {
			if (j.Err == nil) != strings.HasSuffix(j.Derivation.Path, ".drv") {
				t.Errorf("%+v is neither a derivation nor an error", j)
			}
		})
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
