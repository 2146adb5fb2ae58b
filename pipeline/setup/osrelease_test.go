package setup

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// readRelease returns the text of one file of testdata/os-release.
func readRelease(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "os-release", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseOSRelease(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       osRelease
	}{
		{"empty", "", osRelease{id: "linux"}},
		{"empty id", "ID=\n", osRelease{id: "linux"}},
		{"bare", "ID=debian\nVERSION_ID=12\n", osRelease{id: "debian", versionID: "12"}},
		{
			"double quotes", `ID="rocky"` + "\n" + `ID_LIKE="rhel centos fedora"`,
			osRelease{id: "rocky", idLike: []string{"rhel", "centos", "fedora"}},
		},
		{"single quotes", `ID='a\b'`, osRelease{id: `a\b`}},
		{"escapes", `ID="a\"b\\c\$d\n"`, osRelease{id: `a"b\c$d\n`}},
		{"bare escape", `ID=a\ b c`, osRelease{id: "a b"}},
		{"comments", "# ID=no\n  # ID=no\nID=yes # a comment\n", osRelease{id: "yes"}},
		{"comment after quotes", `ID="yes" # "no"`, osRelease{id: "yes"}},
		{"open quote is skipped", "ID=a\nID=\"b\nID='c\n", osRelease{id: "a"}},
		{"backslash at the end", `ID=a\`, osRelease{id: `a\`}},
		{"no assignment", "ID\n=x\nID debian\n", osRelease{id: "linux"}},
		{"last one counts", "ID=a\nID=b\n", osRelease{id: "b"}},
		{"carriage returns", "ID=alpine\r\nVERSION_ID=\"3.22\"\r\n", osRelease{id: "alpine", versionID: "3.22"}},
		{"other names", "XID=a\nID_=b\nVARIANT_ID=c\n", osRelease{id: "linux"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := parseOSRelease(tt.text); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func FuzzParseOSRelease(f *testing.F) {
	files, err := filepath.Glob("testdata/os-release/*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		f.Add(readRelease(f, filepath.Base(file)))
	}
	f.Add("ID=\"a\\")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseOSRelease(text)
		if r.id == "" {
			t.Error("empty ID")
		}
		for _, value := range append([]string{r.id, r.versionID}, r.idLike...) {
			if strings.Contains(value, "\n") {
				t.Errorf("value %q spans lines", value)
			}
		}
		// What a value quoted as the manual demands says is what is read.
		line, _, _ := strings.Cut(text, "\n")
		line = strings.TrimSpace(line)
		if line == "" {
			return
		}
		escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(line)
		if got := parseOSRelease(`ID="` + escaped + `"`).id; got != line {
			t.Errorf("read %q back as %q", line, got)
		}
	})
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for release, want := range map[string][]int{
		"":                         nil,
		"12":                       {12},
		"22.04":                    {22, 4},
		"3.22.2":                   {3, 22, 2},
		"3.24_alpha20260127":       {3, 24},
		"3.24_alpha.5":             {3, 24},
		"rolling":                  nil,
		".5":                       nil,
		"10.":                      {10},
		"99999999999999999999.1":   nil,
		"2.99999999999999999999.1": {2},
	} {
		if got := parseVersion(release); !slices.Equal(got, want) {
			t.Errorf("parseVersion(%q) = %v, want %v", release, got, want)
		}
	}
}

func TestAtLeast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		release string
		minimum []int
		want    bool
	}{
		{"22.04", []int{22, 4}, true},
		{"24.04", []int{22, 4}, true},
		{"20.10", []int{22, 4}, false},
		{"3.9.6", []int{3, 20}, false},
		{"3.20.0", []int{3, 20}, true},
		{"10.1", []int{10}, true},
		{"9.6", []int{10}, false},
		{"", []int{1}, false},
	} {
		if got := atLeast(tt.release, tt.minimum...); got != tt.want {
			t.Errorf("atLeast(%q, %v) = %v", tt.release, tt.minimum, got)
		}
	}
}
