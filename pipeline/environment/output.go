package environment

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Format writes an environment in one form.
type Format func(io.Writer, Environment) error

// Formats are those of --format.
var Formats = map[string]Format{"text": Text, "json": JSON, "dotenv": Dotenv}

// JSON writes an object of schema 1.
func JSON(w io.Writer, e Environment) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(struct {
		Schema int `json:"schema"`
		Environment
		AutoStopSeconds int64 `json:"autoStopSeconds"`
	}{1, e, int64(e.AutoStop.Seconds())})
	if err != nil {
		return fmt.Errorf("writing the environment: %w", err)
	}
	return nil
}

// Text writes a table for people.
func Text(w io.Writer, e Environment) error {
	deployed, stopped := "automatically", "never"
	switch {
	case e.Manual && e.Blocking:
		deployed = "by hand, the pipeline waits for it"
	case e.Manual:
		deployed = "by hand"
	}
	switch {
	case e.StopOnMerge && e.AutoStop > 0:
		stopped = "on merge and after " + formatSpan(e.AutoStop)
	case e.StopOnMerge:
		stopped = "on merge"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"environment", e.Name},
		{"tier", e.Tier},
		{"cluster", e.Cluster},
		{"context", e.KubeContext},
		{"namespace", e.Namespace},
		{"url", e.URL},
		{"variables", e.VarFile},
		{"deployed", deployed},
		{"stopped", stopped},
	} {
		// Errors are kept until Flush.
		_, _ = fmt.Fprintf(table, "%s\t%s\n", row[0], row[1])
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the environment: %w", err)
	}
	return nil
}

// Dotenv writes a file for GitLab's artifacts:reports:dotenv, which takes one
// KEY=value on a line, without quotes, comments or spaces, in at most 5 KiB and
// 20 variables on the smallest plan. Variables of a project or group with these
// names win over it.
//
//	KUBE_CONTEXT                   of the kubeconfig that the job is given
//	KUBE_NAMESPACE                 to deploy to
//	ENVIRONMENT_KIND               review, staging or production
//	ENVIRONMENT_NAME               GitLab's, such as review/fix-x
//	ENVIRONMENT_SLUG               a DNS label that no other environment has
//	ENVIRONMENT_TIER               GitLab's deployment tier
//	ENVIRONMENT_PROJECT            GitLab project that owns it
//	ENVIRONMENT_CLUSTER            the cluster's name
//	ENVIRONMENT_DOMAIN             the cluster's domain
//	ENVIRONMENT_HOST               where it answers
//	ENVIRONMENT_URL                likewise, with https://
//	ENVIRONMENT_VAR_FILE           file of OpenTofu's variables
//	ENVIRONMENT_RESOURCE_GROUP     one deployment at a time in it
//	ENVIRONMENT_MANUAL             true or false
//	ENVIRONMENT_BLOCKING           true or false
//	ENVIRONMENT_STOP_ON_MERGE      true or false
//	ENVIRONMENT_AUTO_STOP_SECONDS  0 for never
func Dotenv(w io.Writer, e Environment) error {
	var b strings.Builder
	for _, v := range [][2]string{
		{"KUBE_CONTEXT", e.KubeContext},
		{"KUBE_NAMESPACE", e.Namespace},
		{"ENVIRONMENT_KIND", string(e.Kind)},
		{"ENVIRONMENT_NAME", e.Name},
		{"ENVIRONMENT_SLUG", e.Slug},
		{"ENVIRONMENT_TIER", e.Tier},
		{"ENVIRONMENT_PROJECT", e.Project},
		{"ENVIRONMENT_CLUSTER", e.Cluster},
		{"ENVIRONMENT_DOMAIN", e.Domain},
		{"ENVIRONMENT_HOST", e.Host},
		{"ENVIRONMENT_URL", e.URL},
		{"ENVIRONMENT_VAR_FILE", e.VarFile},
		{"ENVIRONMENT_RESOURCE_GROUP", e.ResourceGroup},
		{"ENVIRONMENT_MANUAL", strconv.FormatBool(e.Manual)},
		{"ENVIRONMENT_BLOCKING", strconv.FormatBool(e.Blocking)},
		{"ENVIRONMENT_STOP_ON_MERGE", strconv.FormatBool(e.StopOnMerge)},
		{"ENVIRONMENT_AUTO_STOP_SECONDS", strconv.FormatInt(int64(e.AutoStop.Seconds()), 10)},
	} {
		if v[1] == "" || word(v[1]) != "" {
			return fmt.Errorf("%s=%q cannot stand in a dotenv file", v[0], v[1])
		}
		fmt.Fprintf(&b, "%s=%s\n", v[0], v[1])
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the environment: %w", err)
	}
	return nil
}
