mock_provider "kubectl" {}

variables {
  project_id = 42
}

run "each_environment_deploys_to_its_own_namespace" {
  command = plan

  variables {
    environments = {
      attic-cache         = { environment = "production" }
      attic-cache-staging = { environment = "staging" }
    }
  }

  assert {
    condition     = yamldecode(output.manifests["deployer/attic-cache"]).subjects[0].name == "gitlab:project_env:42:production" && yamldecode(output.manifests["deployer/attic-cache-staging"]).subjects[0].name == "gitlab:project_env:42:staging"
    error_message = "Another environment may deploy to production."
  }
  assert {
    condition     = alltrue([for name, text in output.manifests : yamldecode(text).kind != "ClusterRoleBinding"])
    error_message = "Somebody has rights in all namespaces."
  }
}

run "a_deployer_can_give_nothing_away" {
  command = plan

  assert {
    condition = alltrue(flatten([for r in yamldecode(output.manifests["deployer"]).rules : [
      !contains(r.verbs, "*"), !contains(r.verbs, "bind"), !contains(r.verbs, "escalate"), !contains(r.verbs, "impersonate"),
      !contains(r.resources, "*"), !contains(r.resources, "pods/exec"), !contains(r.resources, "rolebindings"), !contains(r.resources, "namespaces"),
    ]]))
    error_message = "The deployer's role reaches further than a deployment needs."
  }
}

run "review_jobs_stay_within_their_prefix" {
  command = plan

  variables {
    review = {}
  }

  assert {
    condition     = yamldecode(output.manifests["review-policy"]).spec.validations[0].expression == "variables.target.startsWith('attic-cache-review-')"
    error_message = "Review jobs reach other namespaces."
  }
  assert {
    condition = length(setintersection(yamldecode(output.manifests["review-policy"]).spec.variables[*].name, [
      "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
      "namespace", "null", "package", "return", "true", "var", "void", "while",
    ])) == 0
    error_message = "The API server refuses the policy: a variable has a name that CEL reserves."
  }
  assert {
    condition     = yamldecode(output.manifests["review-policy"]).spec.matchConditions[0].expression == "request.userInfo.groups.exists(g, g == 'gitlab:project_env_tier:42:development')"
    error_message = "The policy is for another group than the binding."
  }
  assert {
    condition     = [for r in yamldecode(output.manifests["reviewer"]).rules : r.resourceNames if contains(r.verbs, "bind")] == [["attic-cache-deployer"]]
    error_message = "Review jobs may bind other roles."
  }
}

run "viewers_see_no_secrets" {
  command = plan

  variables {
    viewers = ["runners"]
  }

  assert {
    condition     = alltrue([for r in yamldecode(output.manifests["viewer"]).rules : !contains(r.resources, "secrets") && toset(r.verbs) == toset(["get", "list", "watch"])])
    error_message = "Viewers see secrets, or change something."
  }
  assert {
    condition     = yamldecode(output.manifests["viewer/runners"]).subjects[0].name == "gitlab:project:42"
    error_message = "Others may look."
  }
}

run "refuses_a_prefix_that_covers_everything" {
  command = plan

  variables {
    review = { prefix = "" }
  }
  expect_failures = [var.review]
}

run "refuses_a_path_as_an_environment" {
  command = plan

  variables {
    environments = { cache = { environment = "review/foo" } }
  }
  expect_failures = [var.environments]
}

run "viewers_may_read_the_file_that_health_is_asked_with" {
  command = plan

  assert {
    condition     = anytrue([for r in yamldecode(output.manifests["viewer"]).rules : contains(r.resources, "configmaps")]) && !anytrue([for r in yamldecode(output.manifests["viewer"]).rules : contains(r.resources, "secrets")])
    error_message = "Jobs cannot read which runners there are to be, or can read their tokens."
  }
}
