mock_provider "kubectl" {}

variables {
  namespace    = "runners"
  image        = "registry.example.org/flywheel:v1.2.3"
  group_id     = 7
  token_secret = { secret = "manager" }
  runners = {
    docker = { tags = ["docker", "linux"], secret = "docker-token" }
    any    = { tags = [], run_untagged = true, secret = "any-token" }
  }
}

run "the_command_has_what_it_needs" {
  command = plan

  assert {
    condition     = slice(yamldecode(output.manifests["cronjob"]).spec.jobTemplate.spec.template.spec.containers[0].args, 0, 4) == ["runners", "rotate", "--config=/etc/flywheel/runners.toml", "--namespace=runners"]
    error_message = "The command is another."
  }
  assert {
    condition     = strcontains(output.config, "group = 7") && strcontains(output.config, "tags = [\"docker\",\"linux\"]") && !strcontains(output.config, "project =")
    error_message = "The file says other runners: ${output.config}"
  }
  assert {
    condition     = yamldecode(output.manifests["cronjob"]).spec.concurrencyPolicy == "Forbid"
    error_message = "Two runs would rotate each other's tokens."
  }
}

run "it_reads_no_other_secret" {
  command = plan

  assert {
    condition     = alltrue([for r in yamldecode(output.manifests["role"]).rules : r.verbs == ["create"] || r.resourceNames == ["any-token", "docker-token"]])
    error_message = "The job may read every secret of the namespace."
  }
}

run "refuses_a_group_and_a_project" {
  command = plan

  variables {
    project_id = 8
  }
  expect_failures = [var.project_id]
}

run "refuses_a_runner_that_would_get_no_job" {
  command = plan

  variables {
    runners = { idle = { tags = [], secret = "x" } }
  }
  expect_failures = [var.runners]
}

run "refuses_plain_http" {
  command = plan

  variables {
    gitlab_url = "http://gitlab.example.org"
  }
  expect_failures = [var.gitlab_url]
}

run "a_timeout_of_the_project" {
  command = plan

  variables {
    runners = { docker = { tags = ["docker"], secret = "docker-token", timeout = 0 } }
  }

  assert {
    condition     = strcontains(output.config, "timeout = 0")
    error_message = "The file says another timeout: ${output.config}"
  }
}

run "refuses_a_secret_that_flywheel_refuses" {
  command = plan

  variables {
    runners = { docker = { tags = ["docker"], secret = "Docker_Token" } }
  }
  expect_failures = [var.runners]
}

run "refuses_half_a_second" {
  command = plan

  variables {
    runners = { docker = { tags = ["docker"], secret = "t", timeout = 900.5 } }
  }
  expect_failures = [var.runners]
}

run "refuses_a_timeout_that_gitlab_refuses" {
  command = plan

  variables {
    runners = { docker = { tags = ["docker"], secret = "t", timeout = 60 } }
  }
  expect_failures = [var.runners]
}

run "refuses_group_0" {
  command = plan

  variables {
    group_id = 0
  }
  expect_failures = [var.project_id]
}

run "refuses_more_hours_than_a_duration_has" {
  command = plan

  variables {
    stale_after = "9999999h"
  }
  expect_failures = [var.stale_after]
}

run "refuses_a_url_that_is_none" {
  command = plan

  variables {
    gitlab_url = "https://gitlab example.org"
  }
  expect_failures = [var.gitlab_url]
}
