# Run once for each tfvars file.
mock_provider "kubectl" {}

run "jobs_are_apart_from_the_runners" {
  command = plan

  assert {
    condition     = alltrue([for c in values(output.configs) : strcontains(c.template, "namespace = \"gitlab-runners-jobs\"")])
    error_message = "Jobs run beside the runners, whose tokens they could read."
  }
}

run "refuses_docker_in_docker" {
  command = plan

  variables {
    runners = { x = { type = "dind", token_secret = "x" } }
  }
  expect_failures = [var.runners]
}

run "without_the_prometheus_operator" {
  command = plan

  variables {
    monitoring = { enabled = false }
  }

  assert {
    condition     = alltrue([for text in values(output.manifests) : yamldecode(text).apiVersion != "monitoring.coreos.com/v1"])
    error_message = "Objects of the Prometheus operator are there although it is not."
  }
}

run "jobs_reach_the_cache" {
  command = plan

  assert {
    condition     = anytrue([for e in yamldecode(output.manifests["jobs/networkpolicy"]).spec.egress : try(e.to[0].namespaceSelector.matchLabels["kubernetes.io/metadata.name"], "") == "attic-cache"])
    error_message = "The runners of the type nix are there for the cache, and the policy keeps their jobs from it."
  }
}
