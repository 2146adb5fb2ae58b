package bazel

import (
	"slices"
	"testing"
)

// A flag that a version does not know stops Bazel before it builds anything.
func TestEachVersionIsGivenWhatItKnows(t *testing.T) {
	t.Parallel()
	const experimental, stable = "--experimental_remote_cache_compression", "--remote_cache_compression"
	for version, compression := range map[string]string{
		"":              "",
		"4.0.0":         "",
		"bazel 4.2.3":   "",
		"5.0.0":         experimental,
		"6.5.0":         experimental,
		"7.0.0-pre.1":   stable,
		"7.6.1":         stable,
		"bazel 8.2.1\n": stable,
		"9":             stable,
	} {
		for _, zstd := range []bool{false, true} {
			s := Settings{Cache: Cache{Remote: "grpc://cache:80", Instance: "team", Writable: true, Zstd: zstd}, Download: Minimal}
			if version != "" {
				var err error
				if s.Version, err = ParseVersion(version); err != nil {
					t.Fatal(err)
				}
			}
			want := []string{
				"--remote_cache=grpc://cache:80", "--remote_instance_name=team", "--remote_upload_local_results=true",
				"--remote_download_minimal", "--remote_timeout=60", "--remote_local_fallback",
			}
			if zstd && compression != "" {
				want = append(want, compression)
			}
			if got := s.Flags(); !slices.Equal(got, want) {
				t.Errorf("%q: %q, want %q", version, got, want)
			}
		}
	}
}

func TestTheFlagsFitTheCache(t *testing.T) {
	t.Parallel()
	s := Settings{Cache: Cache{Remote: "http://cache/team"}, Version: Version{8, 2}, Download: TopLevel, Token: `a"b`}
	want := `build --remote_cache=http://cache/team
build --remote_upload_local_results=false
build --remote_download_toplevel
build --remote_timeout=60
build --remote_local_fallback
build "--remote_header=Authorization=Bearer a\"b"
`
	if got := RC(s.Flags()); got != want {
		t.Errorf("lines\n%swant\n%s", got, want)
	}
	s.Download = All
	if got := s.Flags(); !slices.Contains(got, "--remote_download_outputs=all") {
		t.Errorf("all: %q", got)
	}
}

func TestCredentialHelpersByVersion(t *testing.T) {
	t.Parallel()
	for v, want := range map[Version]string{
		{}: "", {5, 4}: "", {6, 0}: "--experimental_credential_helper=cache.example.org=x", {8, 0}: "--credential_helper=cache.example.org=x",
	} {
		s := Settings{Version: v, Cache: Cache{Remote: "grpcs://cache.example.org:443"}}
		if got := s.CredentialFlag("x"); got != want {
			t.Errorf("%s: %q, want %q", v, got, want)
		}
	}
}

func TestWhatIsNoVersion(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "bazel no_version", "bazel", "v8", "3.7.2", "99999", "-1", "8,2"} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("%q is taken for %s", text, v)
		}
	}
}

// FuzzParseVersion sees that what is read is written as something that is read as
// the same.
func FuzzParseVersion(f *testing.F) {
	for _, text := range []string{"8.2.1", "bazel 4.2.3", "bazel no_version", "release 7"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVersion(text)
		if err != nil {
			return
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%q is %s, which is %s: %v", text, v, again, err)
		}
	})
}
