package environment

import "strings"

// crossCheck finds environments that would take each other's place.
func (c *Config) crossCheck(t *table) {
	for i, kind := range kinds {
		rule, ok := c.Environments[kind]
		if !ok {
			continue
		}
		below := t.table(string(kind))
		if _, ok := c.Clusters[rule.Cluster]; !ok {
			below.fault("cluster", "there is no cluster %q", rule.Cluster)
			continue
		}
		for _, other := range kinds[:i] {
			earlier, ok := c.Environments[other]
			if !ok {
				continue
			}
			distinct(below, other, "name", rule.Name, earlier.Name)
			if c.Clusters[rule.Cluster].Context == c.Clusters[earlier.Cluster].Context {
				distinct(below, other, "namespace", rule.Namespace, earlier.Namespace)
			}
			distinct(below, other, "host", c.withDomain(rule), c.withDomain(earlier))
		}
		if n := len(sampleOf(c.withDomain(rule), rule.slugLimit())); n > maxHost {
			below.fault("host", "may become %d characters long with its domain; a name in the DNS has at most %d", n, maxHost)
		}
	}
}

func (c *Config) withDomain(r Rule) string {
	return strings.ReplaceAll(r.Host, "{domain}", c.Clusters[r.Cluster].Domain)
}

// distinct notes it when a value is, or with some branch could be, the same as
// another environment's.
func distinct(t *table, other Kind, key, value, others string) {
	before, after, open := strings.Cut(strings.Replace(others, "{ref}", "{slug}", 1), "{slug}")
	switch branch, fits := strings.CutPrefix(value, before); {
	case !open && value == others:
		t.fault(key, "%q is what %s has too: one would be deployed over the other", value, other)
	case open && fits:
		if branch, fits = strings.CutSuffix(branch, after); fits && label(branch) == "" {
			t.fault(key, "%q is what %s gets for a branch %q", value, other, branch)
		}
	}
}
