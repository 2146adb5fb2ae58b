mock_provider "kubectl" {}

variables {
  name          = "runner"
  namespace     = "runners"
  job_namespace = "jobs"
  type          = "docker"
  token_secret  = "token"
}

run "docker" {
  command = plan

  assert {
    condition     = output.tags == ["docker", "linux", "amd64"] && !output.privileged
    error_message = "The tags are ${join(", ", output.tags)}."
  }
  assert {
    condition     = strcontains(output.config.template, "privileged = false") && strcontains(output.config.template, "allow_privilege_escalation = false") && strcontains(output.config.template, "namespace = \"jobs\"")
    error_message = "Jobs have more rights than they need: ${output.config.template}"
  }
  assert {
    condition     = !can(regex("(?m)^ *token *=", output.config.template))
    error_message = "A token stands in a ConfigMap."
  }
}

run "dind" {
  command = plan

  variables {
    type = "dind"
  }

  assert {
    condition     = output.tags == ["docker", "dind", "privileged"] && output.privileged && strcontains(output.config.template, "privileged = true") && strcontains(output.config.template, "DOCKER_TLS_CERTDIR=/certs")
    error_message = "Docker-in-Docker would not start."
  }
}

run "rocky8" {
  command = plan

  variables {
    type = "rocky8"
  }

  assert {
    condition     = output.tags == ["rocky8", "rhel8", "linux"] && !output.privileged
    error_message = "The tags are ${join(", ", output.tags)}."
  }
}

run "rocky9" {
  command = plan

  variables {
    type = "rocky9"
  }

  assert {
    condition     = output.tags == ["rocky9", "rhel9", "linux"] && !output.privileged
    error_message = "The tags are ${join(", ", output.tags)}."
  }
}

run "nix" {
  command = plan

  variables {
    type  = "nix"
    cache = { url = "https://cache.example.org/main", public_key = "main-1:abc=" }
  }

  assert {
    condition     = output.tags == ["nix", "flakes"] && !output.privileged
    error_message = "The tags are ${join(", ", output.tags)}."
  }
  assert {
    condition     = strcontains(output.config.template, "extra-substituters = https://cache.example.org/main\\nfallback = true") && strcontains(output.config.template, "extra-trusted-public-keys = main-1:abc=")
    error_message = "Jobs do not use the cache, or do not trust it: ${output.config.template}"
  }
}

run "a_replica_that_ends_waits_for_its_jobs" {
  command = plan

  variables {
    stop_seconds = 1800
  }

  assert {
    condition     = yamldecode(output.manifests["deployment"]).spec.template.spec.terminationGracePeriodSeconds > 1800 && strcontains(output.config.global, "shutdown_timeout = 1800")
    error_message = "Jobs are killed with the replica that runs them."
  }
}

run "scaled_by_slots" {
  command = plan

  variables {
    concurrent = 10
    replicas   = { min = 2, max = 4, jobs_metric = true }
  }

  assert {
    condition     = yamldecode(output.manifests["autoscaler"]).spec.metrics[0].pods.target.averageValue == "7"
    error_message = "There is no room for the jobs that come while a replica starts."
  }
}

run "runner_and_jobs_are_different_accounts" {
  command = plan

  assert {
    condition     = strcontains(output.config.template, "service_account = \"runner-job\"") && strcontains(output.config.template, "automount_service_account_token = false") && yamldecode(output.manifests["rolebinding"]).subjects[0].name == "runner"
    error_message = "Jobs may start pods."
  }
  assert {
    condition     = alltrue([for c in concat(yamldecode(output.manifests["deployment"]).spec.template.spec.initContainers, yamldecode(output.manifests["deployment"]).spec.template.spec.containers) : c.securityContext.readOnlyRootFilesystem])
    error_message = "The runner may write to its root file system."
  }
}

run "a_rotated_token_is_read_without_a_rollout" {
  command = plan

  assert {
    condition = alltrue([
      for c in yamldecode(output.manifests["deployment"]).spec.template.spec.initContainers :
      c.restartPolicy == "Always" && !can([for e in c.env : e.valueFrom][0]) && contains([for m in c.volumeMounts : m.mountPath if !can(m.subPath)], "/etc/gitlab-runner-token")
    ])
    error_message = "The token is read once, when the pod starts: after a rotation the runner falls silent."
  }
  assert {
    condition     = [for v in yamldecode(output.manifests["deployment"]).spec.template.spec.volumes : v.secret.secretName if can(v.secret)] == ["token"]
    error_message = "The token's secret is not mounted."
  }
}

run "refuses_nix_without_a_cache" {
  command = plan

  variables {
    type = "nix"
  }
  expect_failures = [var.cache]
}

run "refuses_an_unknown_type" {
  command = plan

  variables {
    type = "windows"
  }
  expect_failures = [var.type]
}

run "refuses_plain_http" {
  command = plan

  variables {
    gitlab_url = "http://gitlab.example.org"
  }
  expect_failures = [var.gitlab_url]
}

run "jobs_have_the_runtimes_seccomp_profile" {
  command = plan

  assert {
    condition     = strcontains(output.config.template, "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION = true") && strcontains(output.config.template, "'{\"securityContext\": {\"seccompProfile\": {\"type\": \"RuntimeDefault\"}}}'") && !strcontains(output.config.template, "[runners.kubernetes.pod_security_context]")
    error_message = "The runner knows no such key of pod_security_context, and jobs may make every system call: ${output.config.template}"
  }
}

run "refuses_an_image_of_jobs_without_a_version" {
  command = plan

  variables {
    job_image = "docker.io/library/debian"
  }
  expect_failures = [var.job_image]
}

run "refuses_what_is_no_quantity" {
  command = plan

  variables {
    job_resources = { memory = "2GB" }
  }
  expect_failures = [var.job_resources]
}

run "refuses_a_request_beyond_the_limit" {
  command = plan

  variables {
    job_resources = { memory = "8Gi" }
  }
  expect_failures = [var.job_resources]
}

run "refuses_a_use_of_nothing" {
  command = plan

  variables {
    replicas = { cpu = 0 }
  }
  expect_failures = [var.replicas]
}

run "refuses_half_a_replica" {
  command = plan

  variables {
    replicas = { max = 2.5 }
  }
  expect_failures = [var.replicas]
}

run "refuses_half_a_second" {
  command = plan

  variables {
    stop_seconds = 90.5
  }
  expect_failures = [var.stop_seconds]
}

run "refuses_a_key_that_nix_refuses" {
  command = plan

  variables {
    type  = "nix"
    cache = { url = "https://cache.example.org/main", public_key = "abc=" }
  }
  expect_failures = [var.cache]
}

run "refuses_resources_that_are_no_quantities" {
  command = plan

  variables {
    resources = { memory = "2GB" }
  }
  expect_failures = [var.resources]
}
