// Package runners keeps the fleet's runners alive in GitLab, and their tokens in
// the cluster's secrets.
package runners

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/BurntSushi/toml"
	"k8s.io/apimachinery/pkg/util/validation"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
)

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// Config is the fleet.
type Config struct {
	GitLab  string   `toml:"gitlab"`
	Group   int      `toml:"group"`   // whose runners they are; or
	Project int      `toml:"project"` // of one project
	Runners []Wanted `toml:"runner"`
}

// Wanted is a runner as it is to be.
type Wanted struct {
	Name        string   `toml:"name"` // in the fleet
	Description string   `toml:"description"`
	Tags        []string `toml:"tags"`
	Secret      string   `toml:"secret"` // that its token is kept in
	RunUntagged bool     `toml:"run_untagged"`
	Protected   bool     `toml:"protected"`
	Timeout     int      `toml:"timeout"` // of a job, in seconds; 0: the project's
}

// ReadConfig reads a TOML file. The error joins all that is wrong with it.
func ReadConfig(file string) (*Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the runners' configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("the runners' configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%s is longer than %d bytes", file, maxConfig)
	}
	c, err := ParseConfig(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// ParseConfig reads the text of a configuration.
func ParseConfig(text string) (*Config, error) {
	var c Config
	meta, err := toml.Decode(text, &c)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, key := range meta.Undecoded() {
		errs = append(errs, fmt.Errorf("%s is not known", key))
	}
	if _, err := gitlab.New(c.GitLab, ""); err != nil {
		errs = append(errs, err)
	}
	if (c.Group > 0) == (c.Project > 0) {
		errs = append(errs, errors.New("want group or project, the number of whom the runners belong to"))
	}
	var names, secrets []string
	for i, r := range c.Runners {
		if r.Name == "" {
			errs = append(errs, fmt.Errorf("runner %d has no name", i+1))
		}
		if len(validation.IsDNS1123Subdomain(r.Secret)) > 0 {
			errs = append(errs, fmt.Errorf("runner %q: secret %q is no name of a secret", r.Name, r.Secret))
		}
		if len(r.Tags) == 0 && !r.RunUntagged {
			errs = append(errs, fmt.Errorf("runner %q would take no jobs: give it tags or run_untagged", r.Name))
		}
		if r.Timeout != 0 && r.Timeout < 600 {
			errs = append(errs, fmt.Errorf("runner %q: timeout %d: GitLab wants at least 600 seconds", r.Name, r.Timeout))
		}
		if slices.Contains(names, r.Name) || slices.Contains(secrets, r.Secret) {
			errs = append(errs, fmt.Errorf("runner %q: another has its name or its secret", r.Name))
		}
		names, secrets = append(names, r.Name), append(secrets, r.Secret)
	}
	return &c, errors.Join(errs...)
}

func (c *Config) owner() gitlab.Owner { return gitlab.Owner{Group: c.Group, Project: c.Project} }

// spec is the runner in GitLab. Its note says which fleet it is of.
func (w Wanted) spec(namespace string) gitlab.Spec {
	return gitlab.Spec{
		Description: w.Description, Tags: slices.Sorted(slices.Values(w.Tags)), Untagged: w.RunUntagged,
		Protected: w.Protected, Timeout: w.Timeout, Note: fleetNote(namespace) + w.Name,
	}
}

// fleetNote begins the notes of all runners of a fleet.
func fleetNote(namespace string) string { return "flywheel runners: " + namespace + "/" }
