package reporter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// Files that WriteArtifacts makes, each for the part of GitLab's
// artifacts:reports of its name.
const (
	JUnitFile       = "junit.xml"
	DotenvFile      = "build.env"
	AnnotationsFile = "annotations.json"
	MetricsFile     = "metrics.txt"
)

// WriteArtifacts writes what a job keeps of a run into a directory, which is made
// where it is not there.
func WriteArtifacts(dir string, report *flywheel.Report, record *Record) error {
	record.mu.Lock()
	defer record.mu.Unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing reports: %w", err)
	}
	junit, err := junitOf(report, record)
	if err != nil {
		return fmt.Errorf("writing %s: %w", JUnitFile, err)
	}
	links, err := json.MarshalIndent(annotations(report), "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", AnnotationsFile, err)
	}
	var errs []error
	for name, text := range map[string][]byte{
		JUnitFile: junit, DotenvFile: []byte(dotenv(report)),
		AnnotationsFile: append(links, '\n'), MetricsFile: []byte(metrics(report, record)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			errs = append(errs, fmt.Errorf("writing reports: %w", err))
		}
	}
	return errors.Join(errs...)
}

// dotenvMost bounds the list of results: GitLab refuses a file of more than 5 KiB.
const dotenvMost = 4 << 10

// dotenv returns variables for later jobs. Results that do not fit are left out,
// the last ones first.
func dotenv(r *flywheel.Report) string {
	results := strings.Join(r.Results, " ")
	if len(results) > dotenvMost {
		results = results[:strings.LastIndexByte(results[:dotenvMost+1], ' ')]
	}
	var b strings.Builder
	for _, v := range []struct {
		name  string
		value any
	}{
		{"OUTCOME", r.Outcome},
		{"RESULTS", results},
		{"BUILT", r.Built},
		{"SUBSTITUTED", r.Substituted},
		{"PUSHED", r.Pushed.Paths},
		{"MISSING", len(r.Missing)},
		{"CACHE", r.Cache},
	} {
		fmt.Fprintf(&b, "FLYWHEEL_%s=%v\n", v.name, v.value)
	}
	return b.String()
}

type link struct {
	External struct {
		Label string `json:"label"`
		URL   string `json:"url"`
	} `json:"external_link"`
}

// linked bounds the results that a job's page links.
const linked = 20

// annotations are links on a job's page: to the cache, and to its page of each
// result that it holds.
func annotations(r *flywheel.Report) map[string][]link {
	links := []link{} // [] in JSON
	add := func(label, to string) {
		var l link
		l.External.Label, l.External.URL = label, to
		links = append(links, l)
	}
	u, err := url.Parse(r.Cache)
	if err != nil || u.Host == "" || isLoopback(u.Hostname()) {
		return map[string][]link{"Nix cache": links}
	}
	missing := map[string]bool{}
	for _, p := range r.Missing {
		missing[p] = true
	}
	name := strings.Trim(u.Path, "/")
	if name == "" {
		add("Cache "+u.Host, u.JoinPath("-/").String())
		return map[string][]link{"Nix cache": links}
	}
	base := *u
	base.Path = path.Dir("/" + name)
	page := base.JoinPath("-/cache", path.Base(name))
	add("Cache "+path.Base(name), page.String())
	for _, p := range r.Results {
		if len(links) > linked {
			break
		}
		if !missing[p] {
			add(nameOf(p), page.JoinPath(path.Base(p)).String())
		}
	}
	return map[string][]link{"Nix cache": links}
}

// isLoopback says whether a cache is of this machine alone: nobody could follow a
// link to it.
func isLoopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

// metrics returns the run's numbers as OpenMetrics text.
func metrics(r *flywheel.Report, record *Record) string {
	var b strings.Builder
	gauge := func(name, unit, help string, value float64) {
		full := "flywheel_" + name
		fmt.Fprintf(&b, "# TYPE %s gauge\n", full)
		if unit != "" {
			fmt.Fprintf(&b, "# UNIT %s %s\n", full, unit)
		}
		fmt.Fprintf(&b, "# HELP %s %s\n%s %g\n", full, help, full, value)
	}
	gauge("run_seconds", "seconds", "Duration of the run.", r.Seconds)
	gauge("built_derivations", "", "Derivations that were built.", float64(r.Built))
	gauge("substituted_paths", "", "Store paths that were fetched from caches.", float64(r.Substituted))
	if all := r.Built + r.Substituted; all > 0 {
		gauge("hit_ratio", "ratio", "Share of what was needed and not there that caches had.", float64(r.Substituted)/float64(all))
	}
	var failed int
	for _, d := range record.Derivations {
		if d.Failed {
			failed++
		}
	}
	gauge("failed_derivations", "", "Derivations whose build failed.", float64(failed))
	gauge("pushed_paths", "", "Store paths that the cache was sent.", float64(r.Pushed.Paths))
	gauge("pushed_nar_bytes", "bytes", "Size of their NARs.", float64(r.Pushed.NarBytes))
	gauge("pushed_sent_bytes", "bytes", "Bytes sent for them.", float64(r.Pushed.SentBytes))
	gauge("missing_paths", "", "Store paths that the cache should hold and does not.", float64(len(r.Missing)))
	gauge("cache_faults", "", "Kinds of faults that caches had.", float64(len(r.CacheErrors)))
	b.WriteString("# EOF\n")
	return b.String()
}
