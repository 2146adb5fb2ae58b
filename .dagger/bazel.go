package main

import (
	"context"
	"fmt"
	"strings"

	"dagger/attic-cache/internal/dagger"
)

// bazel is a container with Bazel, flywheel and the remote cache. Bazel's own
// directory does not outlive a run: what is kept is in the cache, and the archives
// of external repositories on a volume, by their hashes.
func (m *AtticCache) bazel() *dagger.Container {
	c := dag.Container().From(m.BazelImage)
	if m.BazelCache == "" {
		c = m.withCache(c)
	} else if m.Token != nil && m.Cache == "" {
		// With a Nix cache as well, the token is for that one.
		c = c.WithSecretVariable("ATTIC_TOKEN", m.Token)
	}
	return c.
		WithUser("root"). // whom the volumes belong to, whatever the image's user
		WithFile("/usr/local/bin/flywheel", m.Flywheel("")).
		WithMountedCache("/repositories", dag.CacheVolume("attic-cache-bazel-repositories")).
		WithMountedTemp("/bazel").
		WithMountedDirectory("/src", m.Source).
		WithWorkdir("/src").
		WithExec([]string{"sh", "-c", "mkdir -p /out/files && : > /out/report.json"})
}

// keepOutputs runs a command of Bazel and copies what it leaves in bazel-bin, as
// files rather than links into Bazel's own directory. It ends with the command's
// status.
const keepOutputs = `"$@"
status=$?
if [ -d bazel-bin/. ]; then
  (cd -P bazel-bin && find -L . -name '*.runfiles' -prune -o -type f -print0 2>/dev/null | tar --null -chf - -T -) |
    tar -xf - -C /out/files
fi
exit $status`

// Build targets with Bazel, pulling from the remote cache and filling it.
//
// Without a cache of yours, the bundled server is the remote cache. The report is Bazel's own build events, one JSON object a line; out is what bazel-bin has of the targets.
// +cache="session"
func (m *AtticCache) Bazel(
	ctx context.Context,
	// What to build, such as //app:all; everything when there is none.
	// +optional
	targets []string,
	// Test the targets as well.
	// +optional
	test bool,
	// Further flags for bazel build or test, such as --config=ci.
	// +optional
	flags []string,
	// Folder of the sources that the workspace is in.
	// +optional
	workspace string,
	// Fail when the build fails, instead of returning its report.
	// +optional
	strict bool,
) (*BuildResult, error) {
	command := "build"
	if test {
		command = "test"
	}
	if len(targets) == 0 {
		targets = []string{"//..."}
	}
	args := []string{
		"sh", "-c", keepOutputs, "sh",
		"flywheel", "exec", "--cache", or(m.BazelCache, m.cacheURL()), "--",
		"bazel", "--output_user_root=/bazel", command,
		"--repository_cache=/repositories", "--build_event_json_file=/out/report.json",
		"--color=no", "--curses=no", "--noshow_progress",
	}
	args = append(append(append(args, flags...), "--"), targets...)
	c := m.bazel()
	if workspace != "" {
		c = c.WithWorkdir(joinURL("/src", workspace))
	}
	done, status, err := attempt(ctx, c, args)
	if err != nil {
		return nil, err
	}
	words, err := done.Stderr(ctx)
	if err != nil {
		return nil, err
	}
	r := &BuildResult{
		Out: done.Directory("/out/files"), Report: done.File("/out/report.json"), Ok: status == exitOK,
		Summary: fmt.Sprintf("`bazel %s %s` ended with %d:\n\n```\n%s\n```\n", command, strings.Join(targets, " "), status, lastLines(words, 12)),
	}
	if !r.Ok {
		r.Message = said(ctx, done, "bazel "+command, status).Error()
	}
	if strict {
		return r, r.Check()
	}
	return r, nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
