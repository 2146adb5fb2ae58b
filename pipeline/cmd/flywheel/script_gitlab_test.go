package main

import (
	"github.com/rogpeppe/go-internal/testscript"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab/gitlabtest"
)

// cmdGitLab starts a GitLab, whose URL becomes the variable gitlab:
//
//	gitlab          starts it
//	gitlab asked    sees that it was asked nothing but what its API knows, and to
//	                change nothing
//
// Its tokens are maintainer, developer, narrow (without a scope for the API), expired
// and revoked. Its projects: group/app, for which docker and nix are online;
// group/off, which takes no group runners, without CI/CD; group/far, for which none
// is online; group/old, which is archived.
func cmdGitLab(ts *testscript.TestScript, neg bool, args []string) {
	s := stateOf(ts)
	switch {
	case !neg && len(args) == 0 && s.gitlab == nil:
		online := [][]string{{"docker", "linux", "amd64"}, {"nix", "flakes"}}
		s.gitlab = gitlabtest.New(gitlabtest.Contents{
			Tokens: map[string]gitlabtest.Token{
				"maintainer": {Role: gitlabtest.Maintainer, Scopes: []string{"read_api"}},
				"developer":  {Role: gitlabtest.Developer, Scopes: []string{"read_api"}},
				"narrow":     {Role: gitlabtest.Maintainer, Scopes: []string{"read_user"}},
				"expired":    {Refused: "expired"},
				"revoked":    {Refused: "revoked"},
			},
			Projects: map[string]gitlabtest.Project{
				"group/app": {ID: 1, GroupRunners: online},
				"group/off": {ID: 2, GroupRunners: online, NoGroup: true, NoJobs: true},
				"group/far": {ID: 3, GroupRunners: [][]string{{"docker"}}},
				"group/old": {ID: 4, GroupRunners: online, Archived: true},
			},
		})
		ts.Setenv("gitlab", s.gitlab.URL)
	case !neg && len(args) == 1 && args[0] == "asked" && s.gitlab != nil:
		if faults, sent := s.gitlab.Faults(), s.gitlab.Sent(); len(faults)+len(sent) > 0 {
			ts.Fatalf("GitLab was asked %q, and to change %q", faults, sent)
		}
	default:
		ts.Fatalf("usage: gitlab [asked]")
	}
}
