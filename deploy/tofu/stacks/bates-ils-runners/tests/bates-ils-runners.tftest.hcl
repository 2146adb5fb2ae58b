# Run once for each tfvars file.
mock_provider "kubectl" {}

variables {
  group_id = 7
}

run "five_types_with_the_tags_that_projects_use" {
  command = plan

  assert {
    condition = output.tags == {
      docker = ["docker", "linux", "amd64"]
      dind   = ["docker", "dind", "privileged"]
      rocky8 = ["rocky8", "rhel8", "linux"]
      rocky9 = ["rocky9", "rhel9", "linux"]
      nix    = ["nix", "flakes"]
    }
    error_message = "Jobs of existing projects would wait for ever."
  }
}

run "only_dind_is_privileged" {
  command = plan

  assert {
    condition     = [for type, c in output.configs : type if !strcontains(c.template, "privileged = false")] == ["dind"]
    error_message = "Others than dind run privileged."
  }
  assert {
    condition     = { for key in ["jobs", "dind"] : key => yamldecode(output.manifests["${key}/namespace"]).metadata.labels["pod-security.kubernetes.io/enforce"] } == { jobs = "baseline", dind = "privileged" }
    error_message = "Namespaces admit other pods than they should."
  }
  assert {
    condition     = alltrue([for type, c in output.configs : strcontains(c.template, "namespace = \"bates-ils-runners-${type == "dind" ? "dind" : "jobs"}\"")])
    error_message = "Jobs run where privileged pods may."
  }
}

run "nix_jobs_use_the_cache" {
  command = plan

  assert {
    condition     = strcontains(output.configs["nix"].template, "extra-substituters = ${var.cache.url}")
    error_message = "Nix jobs build what the cache has."
  }
}

run "tokens_are_rotated_where_the_runners_look" {
  command = plan

  variables {
    rotation = { image = "registry.example.org/flywheel:v1.2.3" }
  }

  assert {
    condition     = yamldecode(output.manifests["tokens/role"]).rules[0].resourceNames == [for t in ["dind", "docker", "nix", "rocky8", "rocky9"] : "runner-${t}-token"]
    error_message = "Tokens are written to other secrets than the runners read."
  }
}

run "refuses_an_unknown_type" {
  command = plan

  variables {
    runners = { windows = {} }
  }
  expect_failures = [var.runners]
}
