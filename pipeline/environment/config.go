package environment

import (
	_ "embed"
	"fmt"
	"os"
	"time"
)

// Config is the mapping of one organisation. Parse makes it and has checked it.
type Config struct {
	Project      string // in GitLab, that owns the environments: group/…/name
	Clusters     map[string]Cluster
	Environments map[Kind]Rule
}

// Cluster is where environments are.
type Cluster struct {
	Name    string
	Context string // in the kubeconfig; group/project/agents:agent for a GitLab agent
	Domain  string
	VarFile string // of OpenTofu, without directory
}

// Rule says what an environment of some kind is like. The names may hold
// placeholders: {ref} in Name, {slug} in Namespace and Host, both in reviews
// only, and {domain} in Host.
type Rule struct {
	Name, Namespace, Host string
	Tier                  string
	Cluster               string // key of Config.Clusters
	Manual, Blocking      bool
	AutoStop              time.Duration // of reviews
}

//go:embed default.toml
var defaultText string

// DefaultText is the configuration that is built in, as TOML with comments: the
// one to begin another with.
func DefaultText() string { return defaultText }

// Default is the configuration that is built in.
func Default() (*Config, error) { return Parse("the built-in configuration", defaultText) }

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// ReadConfig reads a configuration file; see default.toml for what it holds.
func ReadConfig(file string) (*Config, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if info.Size() > maxConfig {
		return nil, fmt.Errorf("configuration: %s is of %d bytes; at most %d are read", file, info.Size(), maxConfig)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(file, string(text))
}

// ConfigError is a fault in a configuration.
type ConfigError struct {
	File   string
	Line   int    // from 1; of the table for a key that is missing, 0 at the top
	Key    string // dotted, from the top; empty where the text is no TOML
	Reason string
}

func (e *ConfigError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key == "" {
		return where + ": " + e.Reason
	}
	return fmt.Sprintf("%s: %s: %s", where, e.Key, e.Reason)
}

// Parse reads a configuration; file is its name in errors. The error joins a
// *ConfigError for each fault.
func Parse(file, text string) (*Config, error) {
	doc, root, err := parseDocument(file, text)
	if err != nil {
		return nil, err
	}
	c := &Config{Clusters: map[string]Cluster{}, Environments: map[Kind]Rule{}}
	c.Project = root.text("project", projectPath)
	agents := ""
	if root.has("agents") {
		agents = root.text("agents", projectPath)
	}
	clusters, environments := root.table("clusters"), root.table("environments")
	for _, name := range clusters.keys() {
		clusters.check(name, name, label)
		c.Clusters[name] = readCluster(name, agents, clusters.table(name))
	}
	for _, kind := range kinds {
		if environments.has(string(kind)) {
			c.Environments[kind] = readRule(kind, environments.table(string(kind)))
		}
	}
	if len(environments.keys()) == 0 && environments.known() {
		environments.fault("", "there is none of review, staging, production")
	}
	environments.finish()
	root.finish()
	// Faults of single keys would show again as faults between them.
	if len(doc.faults) == 0 {
		c.crossCheck(environments)
	}
	return c, doc.err()
}

func readCluster(name, agents string, t *table) Cluster {
	c := Cluster{Name: name, VarFile: name + ".tfvars", Domain: t.text("domain", dnsName)}
	if t.has("tfvars") {
		c.VarFile = t.text("tfvars", fileName)
	}
	agent := name
	if t.has("agent") {
		agent = t.text("agent", label)
	}
	switch {
	case t.has("context"):
		c.Context = t.text("context", word)
		if t.has("agent") {
			t.fault("agent", "stands beside context, which names the agent already")
		}
	case agents == "":
		t.fault("context", `is missing, and there is no "agents" at the top that would tell it`)
	default:
		c.Context = agents + ":" + agent
	}
	t.finish()
	return c
}

func readRule(kind Kind, t *table) Rule {
	r := Rule{
		Name: t.text("name", word), Namespace: t.text("namespace", word), Host: t.text("host", word),
		Tier: t.text("tier", tier), Cluster: t.text("cluster", word),
		Manual: t.flag("manual"), Blocking: t.flag("blocking"),
	}
	if kind == Review {
		stop := t.text("auto_stop", func(s string) string {
			_, err := parseSpan(s)
			return reason(err)
		})
		r.AutoStop, _ = parseSpan(stop) // checked above
	}
	r.check(kind, t)
	t.finish()
	return r
}
