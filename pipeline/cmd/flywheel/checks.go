package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/reporter"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/scan"
)

// checkFiles are where the results of checks are written, besides the screen.
type checkFiles struct{ report, markdown, junit string }

func (c *checkFiles) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.report, "report", "", "`file` to write the results to, as JSON")
	cmd.Flags().StringVar(&c.junit, "junit", "", "`file` to write the results to, as JUnit's XML")
	cmd.Flags().StringVar(&c.markdown, "summary", "", "`file` to write the results to, as Markdown")
}

func (c *checkFiles) check() error {
	return errors.Join(checkFile("report", c.report), checkFile("summary", c.markdown), checkFile("junit", c.junit))
}

// checkReport is the JSON form of results.
type checkReport struct {
	Schema int           `json:"schema"` // 1
	OK     bool          `json:"ok"`
	Checks check.Results `json:"checks"`
}

// sourceDir is the directory that a command's only argument names.
func sourceDir(args []string) (string, error) {
	dir := "."
	if len(args) > 1 {
		return "", fmt.Errorf("one directory is looked at, not %d", len(args))
	}
	if len(args) == 1 {
		dir = args[0]
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("there is no directory %s", dir)
	}
	return dir, nil
}

// runChecks runs them all and ends with exitChecks when one failed.
func runChecks(cmd *cobra.Command, files checkFiles, checks []check.Check) error {
	results := check.Run(cmd.Context(), cmd.ErrOrStderr(), checks)
	fmt.Fprintln(cmd.ErrOrStderr())
	results.Table(cmd.OutOrStdout())
	if files.report != "" {
		text, err := json.MarshalIndent(checkReport{Schema: 1, OK: results.OK(), Checks: results}, "", "  ")
		if err == nil {
			err = os.WriteFile(files.report, append(text, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if files.junit != "" {
		text, err := reporter.ChecksJUnit(cmd.Name(), results)
		if err == nil {
			err = os.WriteFile(files.junit, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("writing the results as JUnit's XML: %w", err)
		}
	}
	if files.markdown != "" {
		if err := os.WriteFile(files.markdown, []byte(results.Markdown()), 0o644); err != nil {
			return fmt.Errorf("writing the summary: %w", err)
		}
	}
	var failed []string
	for _, r := range results {
		if r.Outcome == check.Failed {
			failed = append(failed, r.Name)
		}
	}
	if len(failed) > 0 {
		return &exitError{exitChecks, fmt.Errorf("failed: %s", strings.Join(failed, ", "))}
	}
	return nil
}

func testCommand() *cobra.Command {
	var files checkFiles
	cmd := &cobra.Command{
		Use:   "test [DIRECTORY]",
		Short: "Look for security faults and secrets in sources",
		Long: `Runs gosec (where there is a go.mod), gitleaks and trivy's scan of configuration
on the directory, "." when none is given. They are Go programs at pinned
versions, built at the first use, which takes minutes, and kept in the user's
cache. All of them run even when one finds something.

Exit status:
  0    nothing was found
  2    bad usage
  10   something was found, or a tool could not run; the table names it
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel test
  flywheel test ./infra --summary findings.md`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := sourceDir(args)
			return usageOf(errors.Join(err, files.check()))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := sourceDir(args)
			if err != nil {
				return usage(err)
			}
			return runChecks(cmd, files, scan.Checks(dir))
		},
	}
	files.flags(cmd)
	return cmd
}
