package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// load loads a file's text as serve does, with flags and an environment.
func load(t testing.TB, text string, env map[string]string, flags ...string) (*config.Settings, error) {
	t.Helper()
	s := config.New()
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	s.AddFlags(f, config.All)
	if err := f.Parse(flags); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		s.File = filepath.Join(t.TempDir(), "x.toml")
		if err := os.WriteFile(s.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Load(func(name string) string { return env[name] })
	return s, err
}

func TestFlagsGoBeforeTheEnvironmentAndThatBeforeTheFile(t *testing.T) {
	t.Parallel()
	const file = `max_size = "1GB"
gc_interval = "2h"
data = "file"
log_level = "error"
s3_bucket = "file"
`
	env := map[string]string{"CACHESERVER_MAX_SIZE": "2GB", "CACHESERVER_GC_INTERVAL": "3h", "S3_BUCKET_NAME": "env"}
	s, err := load(t, file, env, "--max-size", "3GB")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.Server.Policy.MaxSize, s.Server.CollectEvery, s.Server.Data, s.LogLevel, s.Server.S3.Bucket, s.Listen)
	if want := fmt.Sprint(int64(3e9), 3*time.Hour, "file", "ERROR", "env", "127.0.0.1:8080"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var shown bytes.Buffer
	if err := s.Show(&shown); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`max_size = "3GB" # --max-size`, `gc_interval = "3h0m0s" # CACHESERVER_GC_INTERVAL`, `data = "file" # ` + s.File + ":3",
		`s3_bucket = "env" # S3_BUCKET_NAME`, `listen = "127.0.0.1:8080" # default`,
	} {
		if !strings.Contains(shown.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, shown.Bytes())
		}
	}
}

func TestTheExampleIsTheDefaults(t *testing.T) {
	t.Parallel()
	var example, shown, defaults bytes.Buffer
	if err := config.Example(&example); err != nil {
		t.Fatal(err)
	}
	s, err := load(t, example.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Show(&shown), plain.Show(&defaults)); err != nil {
		t.Fatal(err)
	}
	values := func(b *bytes.Buffer) (lines []string) {
		for line := range strings.Lines(b.String()) {
			value, _, _ := strings.Cut(line, " # ")
			lines = append(lines, value)
		}
		return lines
	}
	if got, want := values(&shown), values(&defaults); !slices.Equal(got, want) {
		t.Errorf("the example gives\n%s\nwant\n%s", got, want)
	}
	// What it has as comments only is right, too.
	uncommented := ""
	for line := range strings.Lines(example.String()) {
		line = strings.TrimPrefix(line, "# ")
		if strings.Contains(line, " = ") && !strings.Contains(line, "auth.toml") || strings.HasPrefix(line, "[") {
			uncommented += line
		}
	}
	uncommented = strings.Replace(uncommented, "auth = \"\"\n", "", 1)
	s, err = load(t, uncommented, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, uncommented)
	}
	if len(s.Server.Caches) != 1 || len(s.Server.Caches[0].Upstreams) != 1 || !s.Server.Auth.Enabled || len(s.Server.Auth.OIDC[0].Rules) != 1 {
		t.Errorf("%+v, %+v", s.Server.Caches, s.Server.Auth)
	}
}

func TestWhatIsWrongIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\nlisen = \"x\"":                          "2: lisen: there is no such setting; did you mean listen?",
		"max-size = \"1GB\"":                       "1: max-size: there is no such setting; did you mean max_size?",
		"zzzzzzzzzzzzzzzzzzzzzzzz = 1":             "1: zzzzzzzzzzzzzzzzzzzzzzzz: there is no such setting; cacheserver config example shows all",
		"a = [":                                    "1: a: unexpected EOF",
		"data = \"a\"\ndata = \"b\"":               "2: data: Key 'data' has already been defined.",
		"# x\nmax_size = \"much\"":                 `2: max_size: want a number of bytes such as 200GB or 1.5TiB, not "much"`,
		"max_size = -1":                            "1: max_size: want a number of bytes such as 200GB or 1.5TiB, not -1",
		"max_size = true":                          `1: max_size: want a number of bytes such as "200GB", not true`,
		"max_size = 1.5":                           `1: max_size: want a number of bytes such as "200GB"`,
		"verbose = \"yes\"":                        `1: verbose: want true or false, not "yes"`,
		"max_uploads = \"3\"":                      `1: max_uploads: want a whole number, not "3"`,
		"max_uploads = 0":                          "1: max_uploads: want a whole number of at least 1, not 0",
		"gc_interval = 3":                          "1: gc_interval: want a text in quotes, not 3",
		"grace = \"-1h\"":                          `1: grace: want a duration such as 90s, 30m or 1h30m, not "-1h"`,
		"retention = \"30\"":                       `1: retention: want days such as 90d, hours such as 12h, or off, not "30"`,
		"bazel_retention = \"off\"":                `1: bazel_retention: want days such as 30d or hours such as 12h, not "off"`,
		"public_url = \"cache.example.org\"":       `1: public_url: want a URL such as https://cache.example.org, not "cache.example.org"`,
		"s3_endpoint = \"https://a/b\"":            `1: s3_endpoint: want host:port, http://host:port or https://host:port, not "https://a/b"`,
		"listen = \"8080\"":                        `1: listen: address 8080: missing port in address, not "8080"`,
		"log_format = \"xml\"":                     `1: log_format: want text or json, not "xml"`,
		"log_level = \"loud\"":                     `1: log_level: want debug, info, warn or error, not "loud"`,
		"[data]\nx = 1":                            "1: data: want a text in quotes",
		"\ns3_redirect = true":                     "2: s3_redirect: the packs are not on S3: set storage to s3://bucket as well",
		"storage = \"s3://\"":                      "1: storage: it names no bucket",
		"storage = \"s3://a_b\"":                   `1: storage: the S3 bucket "a_b"`,
		"storage = \"gs://bucket\"":                "1: storage: packs are in a directory or in s3://…, not gs://…",
		"index = \"mysql://root:secret@db/cache\"": "1: index: an index is postgres://… or a file, not mysql://…",
		"grpc_listen = \"127.0.0.1:8080\"":         "1: grpc_listen: it is the address of listen, which answers gRPC, too",
		"storage = \"s3://abc\"\ns3_access_key_id = \"secret\"": "2: s3_access_key_id: it is of no use without s3_secret_access_key",
		"s3_secret_access_key = 7":                              "1: s3_secret_access_key: want a text in quotes, not what stands there",

		"cache = 1":                            "1: cache: want [[cache]] before each cache",
		"[cache]\na = 1":                       "1: cache: want [[cache]] before each cache",
		"[[cache]]\nname = \"a\"\n[[cache]]\n": "3: cache[1]: it has no name",
		"[[cache]]\nname = \"a\"\n\n[[cache]]\nname = \"a\"\n":           `5: cache[1].name: there is another cache "a"`,
		"[[cache]]\nname = \"nar\"":                                      `2: cache[0].name: cache name "nar": the server itself has something of that name`,
		"[[cache]]\nname = \"a\"\npubic = true":                          "3: cache[0].pubic: there is no such setting; did you mean public?",
		"[[cache]]\nname = \"a\"\npublic = 1\n[[cache]]\nname = \"b\"\n": "3: cache[0].public: want true or false",
		"[[cache]]\nname = \"a\"\npriority = 99999999999":                "3: cache[0].priority: want a whole number from",
		"[[cache]]\nname = \"a\"\nretention = \"x\"":                     `3: cache[0].retention: want days such as 90d, hours such as 12h, or off, or global, not "x"`,
		"[[cache]]\nname = \"a\"\nupstream_keys = [\"\"]":                `3: cache[0].upstream_keys: "" is no name of a key`,
		"[[cache]]\nname = \"a\"\nupstream_keys = [\n1]":                 "3: cache[0].upstream_keys[0]: want a list of texts in quotes",
		"[[cache]]\nname = \"a\"\n[[cache.upstreams]]\npublic_keys = [\"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\"]\nurl = \"file:///etc\"": "3: cache[0].upstreams[0]: upstream file:///etc: want http://host/path or https://host/path",
		"[[cache]]\nname = \"a\"\n[[cache.upstreams]]\nurl = \"https://a\"":                                                                                       "3: cache[0].upstreams[0]: it has no public_keys",
		"[[cache]]\nname = \"a\"\nupstreams = [{url = \"https://a\", public_keys = 1}]":                                                                           "3: cache[0].upstreams[0].public_keys: want a list of texts in quotes",
		"[[cache]]\nname = \"a\"\nupstreams = [{url = \"https://a\", public_keys = [\"k\"]}]":                                                                     "3: cache[0].upstreams[0]: upstream https://a: public key 1: malformed key",

		"[auth]\nenabled = \"true\"":   "2: auth.enabled: want a value of type boolean, not string",
		"[auth]\nhs256_secret = []":    "2: auth.hs256_secret: there is no such setting; did you mean hs256_secrets?",
		"[auth]\n[auth.x]\n[auth.x.y]": "2: auth.x: there is no such setting",
		"[[auth.oidc]]\n[[auth.oidc.rules]]\nrights = [\"pull\"]\n[[auth.oidc.rules]]\nrights = [\"pul\"]\n[[auth.oidc.rules]]\nrights = []": `5: auth.oidc.rules.rights: "pul" is no right`,
		"[[auth.oidc]]\n[[auth.oidc.rules]]\nrigths = []\n[[auth.oidc.rules]]\nrights = []":                                                  "3: auth.oidc[0].rules[0].rigths: there is no such setting; did you mean rights?",
	} {
		s, err := load(t, text, nil)
		var faults config.Faults
		if !errors.As(err, &faults) {
			t.Errorf("%q: error %v", text, err)
			continue
		}
		if got := strings.TrimPrefix(err.Error(), s.File+":"); !strings.HasPrefix(got, want) {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
		if strings.Contains(err.Error(), "secret@") {
			t.Errorf("%q: a secret is told: %v", text, err)
		}
	}
}

func TestFaultsAreToldAtOnceInTheOrderOfTheirLines(t *testing.T) {
	t.Parallel()
	_, err := load(t, "max_size = \"x\"\n[[cache]]\nnam = 1\n", map[string]string{"CACHESERVER_GRACE": "soon", "CACHESERVER_INDEX": "x"})
	var faults config.Faults
	errors.As(err, &faults)
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprint(f.Line, " ", f.Key))
	}
	if want := []string{`0 CACHESERVER_GRACE="soon"`, "1 max_size", "2 cache[0]", "3 cache[0].nam"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoFaultOrListingTellsASecret(t *testing.T) {
	t.Parallel()
	const file = `index = "postgres://u:hunter2@db/x?sslpassword=hunter2"
s3_access_key_id = "hunter2"
s3_secret_access_key = "hunter2"
[auth]
hs256_secrets = ["hunter2"]
rs256_keys = ["hunter2"]
issuer = "me"
[[cache]]
name = "main"
[[cache.upstreams]]
url = "https://u:hunter2@cache.example.org"
public_keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]
`
	for _, index := range []string{"", "postgres://u:hunter2@db/x", "postgres://u:hunter2@db/x?password=hunter2", "hunter2://hunter2:hunter2@[hunter2"} {
		s, err := load(t, file, map[string]string{"CACHESERVER_INDEX": index})
		if index == "" || err == nil {
			var shown bytes.Buffer
			if err := errors.Join(err, s.Show(&shown)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(shown.String(), "hunter2") || !strings.Contains(shown.String(), `hs256_secrets = ["…"]`) || !strings.Contains(shown.String(), `issuer = "me"`) {
				t.Errorf("shown:\n%s", shown.Bytes())
			}
		} else if strings.Contains(strings.ReplaceAll(err.Error(), "not hunter2://…", ""), "hunter2") {
			t.Error(err)
		}
		if err := s.CheckAuth(); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
}

func TestDeclaredCaches(t *testing.T) {
	t.Parallel()
	const key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
	s, err := load(t, `
[[cache]]
name = "main"
[[cache]]
name = "own"
public = false
priority = 30
retention = "off"
upstream_keys = []
[[cache.upstreams]]
url = "https://one.example.org/x"
public_keys = ["`+key+`"]
[[cache.upstreams]]
url = "https://two.example.org"
public_keys = ["`+key+`"]
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	caches := s.Server.Caches
	if len(caches) != 2 || caches[0].Public != nil || caches[0].Retention != nil || caches[0].UpstreamKeys != nil {
		t.Fatalf("%+v", caches)
	}
	c := index.Cache{Public: true, Priority: 41, Retention: index.GlobalRetention, UpstreamKeys: []string{"x"}}
	if !caches[1].Apply(&c) || c.Public || c.Priority != 30 || c.Retention != 0 || len(c.UpstreamKeys) != 0 {
		t.Errorf("%+v", c)
	}
	if caches[1].Apply(&c) {
		t.Error("a cache that is as declared is changed")
	}
	if u := caches[1].Upstreams; len(u) != 2 || u[1].URL != "https://two.example.org" || u[0].PublicKeys[0] != key {
		t.Errorf("%+v", u)
	}
}

func TestAuthMayStandInAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	own := filepath.Join(t.TempDir(), "auth.toml")
	if err := os.WriteFile(own, []byte("[auth]\nenabled = true\nissuer = \"own\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text  string
		flags []string
	}{
		{"", []string{"--auth", own}},
		{"auth = \"" + own + "\"", nil},
		{"[auth]\nissuer = \"inline\"", []string{"--auth", own}},
	} {
		s, err := load(t, c.text, nil, c.flags...)
		if err != nil || s.Server.Auth.Issuer != "own" {
			t.Errorf("%+v: %+v, %v", c, s.Server.Auth, err)
		}
	}
	if err := os.WriteFile(own, []byte("[auth]\nenabled = true\n[other]\nx = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, "", nil, "--auth", own); err == nil || !strings.Contains(err.Error(), own+":3: other: of this file, only the table [auth] is read") {
		t.Error(err)
	}
}

func TestATableOfRightsThatDoesNotSayEnabledLeavesNobodyOpen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"":                         false,
		"[auth]\nissuer = \"x\"":   true,
		"[auth]\n":                 true,
		"[auth]\nenabled = false":  false,
		"[[auth.anonymous]]":       true,
		"[auth]\nenabled = true\n": true,
	} {
		s, err := load(t, text, nil)
		if err != nil || s.Server.Auth.Enabled != want {
			t.Errorf("%q: enabled %v, %v; want %v", text, s.Server.Auth.Enabled, err, want)
		}
	}
	without := filepath.Join(t.TempDir(), "auth.toml")
	if err := os.WriteFile(without, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, "", nil, "--auth", without); err == nil || !strings.Contains(err.Error(), "want a table [auth]") {
		t.Errorf("a file of --auth without the table: %v", err)
	}
}

func TestCommandsThatDoNotServeMindTheirOwnSettings(t *testing.T) {
	t.Parallel()
	s := config.New()
	f := pflag.NewFlagSet("gc", pflag.ContinueOnError)
	s.AddFlags(f, config.Engines|config.Collection)
	s.File = filepath.Join(t.TempDir(), "x.toml")
	// Keys that only the server may read are not read.
	if err := os.WriteFile(s.File, []byte("listen = \":1\"\ngrace = \"2h\"\ns3_redirect = true\n[auth]\nhs256_files = [\"/nonesuch\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"CACHESERVER_LISTEN": "nonsense", "CACHESERVER_RETENTION": "off"}
	if err := s.Load(func(name string) string { return env[name] }); err != nil {
		t.Fatal(err)
	}
	if s.Server.Policy.Grace != 2*time.Hour || s.Server.Policy.Retention >= 0 || f.Lookup("listen") != nil || f.Lookup("max-size") == nil {
		t.Errorf("%+v", s.Server.Policy)
	}
	if f.Lookup("s3-secret-access-key") != nil {
		t.Error("a secret has a flag")
	}
}
