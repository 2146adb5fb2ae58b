package bazel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// guarded starts a server on which anybody may read the cache "open", and returns
// a token that may read and write all.
func guarded(t *testing.T) (address, token string) {
	t.Helper()
	secret := auth.GenerateHS256()
	key, err := auth.ParseHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	rights, err := auth.NewRights(auth.Grant{Pattern: "*", Rights: auth.Pull | auth.Push})
	if err != nil {
		t.Fatal(err)
	}
	token, err = auth.Sign(auth.Claims{Subject: "ci", Rights: rights, Expires: time.Now().Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, cacheserver.Config{Auth: auth.Config{
		Enabled: true, HS256Secrets: []auth.Secret{secret},
		Anonymous: []auth.Allow{{Caches: []string{"open"}, Rights: []auth.Right{auth.Pull}}},
	}}), token
}

func TestACacheThatWantsAToken(t *testing.T) {
	t.Parallel()
	address, token := guarded(t)
	for _, c := range []struct {
		instance, token  string
		denied, writable bool
	}{
		{instance: "main", denied: true},
		{instance: "main", token: "wrong", denied: true},
		{instance: "main", token: token, writable: true},
		{instance: "open"},
		{instance: "open", token: token, writable: true},
	} {
		got, err := Probe(t.Context(), "http://"+address+"/"+c.instance, c.token)
		var denied *DeniedError
		if errors.As(err, &denied) != c.denied || (err != nil) != c.denied || got.Writable != c.writable {
			t.Errorf("%s with token %.5q: %+v, %v", c.instance, c.token, got, err)
		} else if c.denied && denied.Shown != (c.token != "") {
			t.Errorf("%v", err)
		}
	}
}

var remoteHits = regexp.MustCompile(`\d+ remote cache hit`)

// Bazel itself takes the flags, shows the token, and builds where it is wrong.
func TestRealBazelTakesTheFlags(t *testing.T) {
	t.Parallel()
	if os.Getenv("BAZELTEST_E2E") == "" {
		t.Skip("it takes minutes: BAZELTEST_E2E=1 or .ci/bazel runs it")
	}
	command, err := exec.LookPath("bazel")
	if err != nil {
		t.Skip("bazel is not installed; Debian's package is bazel-bootstrap")
	}
	address, token := guarded(t)
	home, workspace := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		// Bazel makes what it keeps read-only.
		_ = filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	for name, text := range map[string]string{
		"WORKSPACE": "",
		"BUILD":     `[genrule(name = "g%d" % i, outs = ["g%d.txt" % i], cmd = "echo %d > $@" % i) for i in range(20)]`,
		// What the workspace says itself counts for less.
		".bazelrc": "build --remote_cache=grpc://127.0.0.1:1\nbuild --remote_download_minimal\n",
	} {
		if err := os.WriteFile(filepath.Join(workspace, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(base string, flags []string, args ...string) string {
		t.Helper()
		args = append([]string{command, "--nohome_rc", "--output_user_root=" + home, "--output_base=" + filepath.Join(home, base)}, args...)
		args, remove, err := Supply(args, flags)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
		cmd.Dir = workspace
		cmd.Env = []string{"HOME=" + home, "USER=builder", "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err := errors.Join(err, remove()); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	build := []string{"build", "//...", "--spawn_strategy=local", "--symlink_prefix=/", "--color=no", "--curses=no", "--noshow_progress"}
	settings := func(token string) []string {
		c := Cache{Remote: "grpc://" + address, Instance: "main", Writable: true, Zstd: true}
		return Settings{Cache: c, Download: TopLevel, Token: token}.Flags()
	}
	for i, step := range []struct {
		flags []string
		hits  string
	}{
		{settings(token), ""},
		{settings(token), "20 remote cache hit"},
		{settings("wrong"), ""},
		{settings(""), ""},
		{Off(), ""},
	} {
		base := fmt.Sprint(i)
		out := run(base, step.flags, build...)
		run(base, Off(), "shutdown")
		if hits := remoteHits.FindString(out); hits != step.hits {
			t.Errorf("step %d: %q, want %q\n%s", i, hits, step.hits, out)
		}
		built, err := filepath.Glob(filepath.Join(home, base, "execroot/*/bazel-out/*/bin/g*.txt"))
		if err != nil || len(built) != 20 {
			t.Errorf("step %d: %d outputs, %v", i, len(built), err)
		}
	}
}
