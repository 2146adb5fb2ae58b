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
