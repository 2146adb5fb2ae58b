package auth

import (
	"fmt"
	"strings"
)

// Right is something that may be done with a cache, or a set of such: Pull|Push.
type Right uint

// The rights.
const (
	Pull               Right = 1 << iota // read paths
	Push                                 // add paths
	Delete                               // remove paths
	Create                               // make the cache
	Configure                            // change its settings, but for its retention
	ConfigureRetention                   // change how long it keeps paths
	Destroy                              // remove the cache with all its paths
)

type rightName struct {
	right Right
	claim string // in a token
	name  string // everywhere else
}

var rightNames = []rightName{
	{Pull, "r", "pull"},
	{Push, "w", "push"},
	{Delete, "d", "delete"},
	{Create, "cc", "create-cache"},
	{Configure, "cr", "configure-cache"},
	{ConfigureRetention, "cq", "configure-cache-retention"},
	{Destroy, "cd", "destroy-cache"},
}

// AllRights returns every right, each by itself.
func AllRights() []Right {
	all := make([]Right, len(rightNames))
	for i, n := range rightNames {
		all[i] = n.right
	}
	return all
}

// String names the rights: "pull, push".
func (r Right) String() string {
	var names []string
	for _, n := range rightNames {
		if r&n.right != 0 {
			names = append(names, n.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// UnmarshalText reads the name of one right, such as "pull".
func (r *Right) UnmarshalText(text []byte) error {
	known := make([]string, len(rightNames))
	for i, n := range rightNames {
		if n.name == string(text) {
			*r = n.right
			return nil
		}
		known[i] = n.name
	}
	return fmt.Errorf("%.40q is no right; rights are %s", text, strings.Join(known, ", "))
}
