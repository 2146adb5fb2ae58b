package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/deploy"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// notedLines is how many missing paths, or faults, of a build a note names: GitLab
// refuses one that is too long.
const notedLines = 20

// tellMergeRequest keeps one note for each stack and environment.
func (d *deployment) tellMergeRequest(cmd *cobra.Command, plan deploy.Summary) error {
	project := d.Getenv("CI_MERGE_REQUEST_PROJECT_PATH")
	number, err := strconv.Atoi(d.Getenv("CI_MERGE_REQUEST_IID"))
	if err != nil || project == "" {
		return errors.New("this is no job of a merge request")
	}
	client, err := gitlabClient(d.Getenv, d.Getenv("CI_SERVER_URL"), "the scope api")
	if err != nil {
		return err
	}
	builds, err := readBuilds(d.reports)
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "flywheel: not in the note: %v\n", err)
	}
	var b strings.Builder
	if err := writePlan(&b, d.Stack, d.Environment.Name, plan); err != nil {
		return err
	}
	writeBuilds(&b, builds)
	return client.Note(cmd.Context(), project, number, "flywheel plan "+d.Stack+" "+d.Environment.Name, b.String())
}

// noted is a build's report, under the name of its file.
type noted struct {
	name string
	flywheel.Report
}

// readBuilds reads what it can; the errors are of the other files.
func readBuilds(files []string) ([]noted, error) {
	var builds []noted
	var errs []error
	for _, file := range files {
		n := noted{name: strings.TrimSuffix(filepath.Base(file), ".json")}
		text, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading a build's report: %w", err))
			continue
		}
		if err := json.Unmarshal(text, &n.Report); err != nil || n.Schema != 1 || n.Outcome != flywheel.Built && n.Outcome != flywheel.Failed {
			errs = append(errs, fmt.Errorf("%s is no report of flywheel build (--report)", file))
			continue
		}
		builds = append(builds, n)
	}
	return builds, errors.Join(errs...)
}

func writePlan(b *strings.Builder, stack, environment string, plan deploy.Summary) error {
	var table strings.Builder
	if err := plan.Table(&table); err != nil {
		return err
	}
	fmt.Fprintf(b, "**%s** on `%s`: %s\n", stack, environment, plan)
	writeFolded(b, "Plan", table.String())
	return nil
}

// writeBuilds writes a row for each build, and what the cache lacks or did wrong.
func writeBuilds(b *strings.Builder, builds []noted) {
	if len(builds) == 0 {
		return
	}
	b.WriteString("\n| build | | built | substituted | hit rate | pushed | missing | time saved |\n|---|---|---|---|---|---|---|---|\n")
	for _, n := range builds {
		saved := "–"
		if n.TimeSaved >= 1 {
			saved = seconds(n.TimeSaved)
		}
		fmt.Fprintf(b, "| %s | %s in %s | %d | %d | %s | %d (%s sent) | %d | %s |\n", strings.ReplaceAll(n.name, "|", `\|`), n.Outcome, seconds(n.Seconds),
			n.Built, n.Substituted, hitRate(n.Report), n.Pushed.Paths, bytesize.Tenths(n.Pushed.SentBytes), len(n.Missing), saved)
	}
	b.WriteString("\nHit rate: of the paths that were substituted and the derivations that were built, those substituted. Time saved: what building them took when they were pushed.\n")
	for _, n := range builds {
		writeFolded(b, n.name+": missing in the cache", firstLines(n.Missing))
		writeFolded(b, n.name+": faults of the cache", firstLines(n.CacheErrors))
	}
}

// hitRate is rounded down: 100 % says that nothing was built.
func hitRate(r flywheel.Report) string {
	if r.Substituted+r.Built == 0 {
		return "–"
	}
	return fmt.Sprintf("%d %%", 100*r.Substituted/(r.Substituted+r.Built))
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func firstLines(lines []string) string {
	more := len(lines) - notedLines
	if more > 0 {
		lines = append(lines[:notedLines:notedLines], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// writeFolded writes a text as it is, for those who unfold it; nothing when it is
// empty.
func writeFolded(b *strings.Builder, title, text string) {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return
	}
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	fmt.Fprintf(b, "\n<details><summary>%s</summary>\n\n%s\n%s\n%s\n</details>\n", title, fence, text, fence)
}
