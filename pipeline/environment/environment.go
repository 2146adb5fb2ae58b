// Package environment says which environment a ref is deployed to, and where
// that environment is: a merge request has one of its own, the default branch
// goes to staging, a release's tag to production. Every stage that needs to
// know asks here; what may differ between organisations is in a Config.
package environment

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what an environment is for.
type Kind string

// The kinds, each with the only refs that lead to it.
const (
	Review     Kind = "review"     // merge requests
	Staging    Kind = "staging"    // the default branch
	Production Kind = "production" // tags of releases
)

// kinds are all of them, in the order in which a change goes through them.
var kinds = []Kind{Review, Staging, Production}

// Environment is where something is deployed. None of its texts is empty or
// holds a space.
type Environment struct {
	Kind Kind `json:"kind"`
	// Name is GitLab's name of it. Names of reviews are made with GitLab's own
	// slug, which two branches may share; nothing else of them is.
	Name string `json:"name"`
	// Slug is a DNS label of its own among all environments of the project:
	// for names of states and of files.
	Slug    string `json:"slug"`
	Tier    string `json:"tier"`    // one of GitLab's deployment tiers
	Project string `json:"project"` // in GitLab, that owns it: group/…/name

	Cluster     string `json:"cluster"`
	KubeContext string `json:"kubeContext"` // group/project/agents:agent
	Namespace   string `json:"namespace"`
	Domain      string `json:"domain"` // the cluster's
	Host        string `json:"host"`
	URL         string `json:"url"`

	Manual   bool `json:"manual"`   // someone starts the deployment
	Blocking bool `json:"blocking"` // the pipeline waits until someone did
	// StopOnMerge says that it ends with its merge request.
	StopOnMerge bool `json:"stopOnMerge"`
	// AutoStop is how long after its last deployment it is stopped; 0: never.
	AutoStop time.Duration `json:"-"` // in JSON autoStopSeconds

	VarFile       string `json:"varFile"`       // of OpenTofu, without directory
	ResourceGroup string `json:"resourceGroup"` // one deployment at a time in it
}

// NoEnvironmentError says that a ref is deployed nowhere. That is no fault.
type NoEnvironmentError struct {
	Ref    string // what it is, such as `branch "x"`
	Reason string
}

func (e *NoEnvironmentError) Error() string {
	return fmt.Sprintf("%s has no environment: %s", e.Ref, e.Reason)
}

// Map returns the environment of a ref. The error is a *NoEnvironmentError for
// a ref that has none; any other means that the facts make no sense.
func Map(c *Config, f Facts) (Environment, error) {
	kind, err := f.kind()
	if err != nil {
		return Environment{}, err
	}
	rule, ok := c.Environments[kind]
	if !ok {
		return Environment{}, &NoEnvironmentError{f.String(), fmt.Sprintf("the configuration has no environment %q", kind)}
	}
	cluster := c.Clusters[rule.Cluster]
	e := Environment{
		Kind: kind, Slug: string(kind), Tier: rule.Tier, Project: c.Project,
		Cluster: cluster.Name, KubeContext: cluster.Context, Domain: cluster.Domain, VarFile: cluster.VarFile,
		Manual: rule.Manual, Blocking: rule.Blocking, AutoStop: rule.AutoStop, StopOnMerge: kind == Review,
	}
	var ref, slug string
	if kind == Review {
		slug = branchSlug(f.Branch, rule.slugLimit())
		e.Slug = reviewPrefix + slug
		if ref, err = f.refSlug(); err != nil {
			return Environment{}, err
		}
		if ref == "" { // of a branch such as "日本"; GitLab itself would refuse the name
			ref = slug
		}
	}
	fill := strings.NewReplacer("{ref}", ref, "{slug}", slug, "{domain}", cluster.Domain)
	e.Name, e.Namespace, e.Host = fill.Replace(rule.Name), fill.Replace(rule.Namespace), fill.Replace(rule.Host)
	e.URL, e.ResourceGroup = "https://"+e.Host, e.Name
	return e, nil
}

// kind says which environment a ref leads to.
func (f Facts) kind() (Kind, error) {
	switch {
	case f.MergeRequest && f.Tag != "", f.Branch != "" && f.Tag != "":
		return "", fmt.Errorf("branch %q and tag %q: a ref is only one of them", f.Branch, f.Tag)
	case f.Branch == "" && f.Tag == "":
		return "", errors.New("neither a branch nor a tag is known")
	case f.Scheduled:
		return "", &NoEnvironmentError{f.String(), "a schedule deploys nothing"}
	case f.Fork != "":
		// Its code would run with this project's rights on the cluster.
		return "", &NoEnvironmentError{f.String(), "its branch is in a fork: " + f.Fork}
	case f.MergeRequest:
		return Review, nil
	case f.Tag != "":
		if reason := notReleased(f.Tag); reason != "" {
			return "", &NoEnvironmentError{f.String(), reason}
		}
		return Production, nil
	case f.DefaultBranch == "":
		return "", fmt.Errorf("branch %q: which branch is the default one is not known", f.Branch)
	case f.Branch == f.DefaultBranch:
		return Staging, nil
	}
	return "", &NoEnvironmentError{f.String(), "it is not the default branch, and no merge request"}
}

// ByName returns the environment that people and jobs call name: staging,
// production, or review/BRANCH with the branch as git has it. In a job whose own
// environment has that name, or is of that kind, it is the job's: GitLab's name
// of a review is a slug, from which the branch cannot be told. Unknown names are
// errors that say which there are.
func ByName(c *Config, name string, ci Facts) (Environment, error) {
	own, ownErr := Map(c, ci)
	if ownErr == nil && (name == own.Name || name == string(own.Kind)) {
		return own, nil
	}
	branch, review := strings.CutPrefix(name, string(Review)+"/")
	facts, kind := Facts{Branch: "main", DefaultBranch: "main"}, Kind(name)
	switch {
	case review && branch != "":
		facts, kind = OfMergeRequest(branch), Review
	case name == string(Review):
		return Environment{}, errors.New("environment review: say which, as review/BRANCH with the branch as git has it")
	case name == string(Production):
		facts = OfTag("v0.0.0") // where it is does not depend on the version
	}
	if _, ok := c.Environments[kind]; !ok {
		var known []string
		for _, k := range kinds {
			if rule, ok := c.Environments[k]; ok {
				known = append(known, strings.NewReplacer("{ref}", "BRANCH").Replace(rule.Name))
			}
		}
		return Environment{}, fmt.Errorf("there is no environment %q: there are %s", name, strings.Join(known, ", "))
	}
	return Map(c, facts)
}
