package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// tokenVariable holds the token for caches that want one: never a flag, which
// any process on the machine could read.
const tokenVariable = credential.TokenVariable

// cacheFlags adds the flags that every command has which meets a cache.
func cacheFlags(cmd *cobra.Command, o *flywheel.Options) {
	f := cmd.Flags()
	f.StringArrayVar(&o.Caches, "cache", nil, "`URL[/NAME]` of a cache to pull from; the first that answers is pushed to (repeatable)")
	f.StringVar(&o.Data, "data", defaultData(), "`directory` of the embedded server's data")
	f.StringArrayVar(&o.PublicKeys, "trusted-public-key", nil, "`key` of a cache that does not tell its own (repeatable)")
	f.StringArrayVar(&o.UpstreamKeys, "upstream-key", []string{flywheel.DefaultUpstreamKey}, "`name` of a key; what it signed is not pushed (repeatable)")
	f.StringArrayVar(&o.Upstreams, "upstream", nil, "`URL` of a cache; what it holds is not pushed (repeatable)")
	f.Var((*regexps)(&o.Exclude), "exclude", "`regular expression`; store paths that it matches are not pushed (repeatable)")
	f.Var((*byteSize)(&o.MaxNarSize), "max-nar-size", "`size`, such as 2GiB; larger paths are not pushed")
	f.IntVarP(&o.Jobs, "jobs", "j", 0, "how many paths are pushed at a time (default what suits the cache)")
	f.StringVar(&o.Credentials.File, "token-file", "", "`file` with the token for the caches (default "+credential.TokenVariable+", netrc, the job's own identity)")
	f.StringVar(&o.Credentials.Audience, "audience", "", "whom an ID token of GitHub is made for (default the cache's scheme and host)")
	f.BoolVar(&o.Setup, "setup", false, "install Nix when it is missing")
	o.DrainTime = flywheel.DefaultDrainTime
}

// checkCaches finds what is wrong with cacheFlags' values.
func checkCaches(o *flywheel.Options) error {
	for _, c := range o.Caches {
		if err := target.Check(c); err != nil {
			return fmt.Errorf("--cache: %w", err)
		}
	}
	for _, u := range o.Upstreams {
		if _, err := push.NewClient(u); err != nil {
			return fmt.Errorf("--upstream: %w", err)
		}
	}
	if o.Jobs < 0 {
		return fmt.Errorf("--jobs %d: want 1 or more", o.Jobs)
	}
	for _, key := range o.PublicKeys {
		if err := nixconf.CheckKey(key); err != nil {
			return fmt.Errorf("--trusted-public-key: %w", err)
		}
	}
	if o.Data == "" && len(o.Caches) == 0 {
		return errors.New("neither XDG_CACHE_HOME nor HOME is set: say with --data where the cache is to be kept, or with --cache which to use")
	}
	return nil
}

// surroundings fills in what comes from the process rather than from flags.
func surroundings(cmd *cobra.Command, o *flywheel.Options) {
	o.Out = cmd.ErrOrStderr()
	o.Log = slog.New(slog.NewTextHandler(screenOf(cmd), nil))
	o.Credentials = credential.New(o.Credentials.File, o.Credentials.Audience)
}

func defaultData() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "attic-cache")
}

// checkFile says so when a file that is to be written at the end cannot be.
func checkFile(flag, file string) error {
	if file == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return fmt.Errorf("--%s %s: there is no directory %s", flag, file, filepath.Dir(file))
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return fmt.Errorf("--%s %s: this is a directory", flag, file)
	}
	return nil
}

// checkDir says so when a directory that is to be filled at the end cannot be one.
func checkDir(flag, dir string) error {
	if dir == "" {
		return nil
	}
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("--%s %s: %s is no directory", flag, dir, at)
		case at == filepath.Dir(at):
			return nil // nothing to look at: making it will tell
		}
	}
}

// checkLink says so when a symlink that is to be made at the end cannot be.
func checkLink(flag, link string) error {
	if link == "" {
		return nil
	}
	if info, err := os.Lstat(link); err == nil && info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("--%s %s: something else is there, and no symlink", flag, link)
	}
	if info, err := os.Stat(filepath.Dir(link)); err != nil || !info.IsDir() {
		return fmt.Errorf("--%s %s: there is no directory %s", flag, link, filepath.Dir(link))
	}
	return nil
}

func usageOf(err error) error {
	if err == nil {
		return nil
	}
	return usage(err)
}
