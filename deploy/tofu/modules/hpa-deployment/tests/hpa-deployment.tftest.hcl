mock_provider "kubectl" {}

variables {
  name      = "app"
  namespace = "apps"
  image     = "registry.example.org/app:1.0"
}

run "secure_by_default" {
  command = plan

  assert {
    condition = alltrue([
      yamldecode(output.manifests["deployment"]).spec.template.spec.securityContext.runAsNonRoot,
      yamldecode(output.manifests["deployment"]).spec.template.spec.automountServiceAccountToken == false,
      yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem,
    ])
    error_message = "The pod has more rights than it needs."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["deployment"]).spec.replicas)
    error_message = "The Deployment fixes the replicas, so that each apply would undo what the autoscaler did."
  }
  assert {
    condition     = length(yamldecode(output.manifests["deployment"]).spec.template.spec.topologySpreadConstraints) == 2
    error_message = "The replicas are not spread."
  }
}

run "one_replica_has_no_budget" {
  command = plan

  variables {
    replicas = { min = 1, max = 1 }
  }

  assert {
    condition     = !contains(keys(output.manifests), "disruptionbudget")
    error_message = "A budget for one replica keeps its node from being drained."
  }
}

run "a_route_and_metrics" {
  command = plan

  variables {
    route   = { kind = "ingress", host = "app.example.org", ingress_class = "nginx", tls_secret = "tls" }
    metrics = { path = "/metrics" }
    clients = ["ingress"]
  }

  assert {
    condition     = yamldecode(output.manifests["ingress"]).spec.tls[0].hosts == ["app.example.org"] && output.url == "https://app.example.org"
    error_message = "The route is for another host."
  }
  assert {
    condition     = length(yamldecode(output.manifests["networkpolicy"]).spec.ingress[0].from) == 3
    error_message = "The ingress controller or Prometheus is shut out."
  }
}

run "refuses_root" {
  command = plan

  variables {
    user = 0
  }
  expect_failures = [var.user]
}

run "refuses_a_port_of_root" {
  command = plan

  variables {
    port = 80
  }
  expect_failures = [var.port]
}

run "refuses_a_gateway_without_a_name" {
  command = plan

  variables {
    route = { kind = "gateway", host = "app.example.org" }
  }
  expect_failures = [var.route]
}

run "without_a_certificate_it_is_http" {
  command = plan

  variables {
    route = { kind = "ingress", host = "app.example.org" }
  }

  assert {
    condition     = output.url == "http://app.example.org"
    error_message = "Nothing answers at ${output.url}."
  }
}

run "refuses_two_variables_of_a_name" {
  command = plan

  variables {
    environment        = { TOKEN = "x" }
    secret_environment = { TOKEN = { secret = "s", key = "token" } }
  }
  expect_failures = [var.secret_environment]
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
    replicas = { min = 1.5 }
  }
  expect_failures = [var.replicas]
}

run "refuses_half_a_second" {
  command = plan

  variables {
    stop_seconds = 7.5
  }
  expect_failures = [var.stop_seconds]
}

run "refuses_a_url_as_a_host" {
  command = plan

  variables {
    route = { kind = "ingress", host = "https://app.example.org" }
  }
  expect_failures = [var.route]
}

run "refuses_resources_that_are_no_quantities" {
  command = plan

  variables {
    resources = { memory = "2GB" }
  }
  expect_failures = [var.resources]
}
