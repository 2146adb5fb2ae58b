mock_provider "kubectl" {}

variables {
  namespace    = "dashboard"
  image        = "registry.example.org/dashboard:1.0"
  gitlab_token = { secret = "gitlab" }
}

run "it_only_reads" {
  command = plan

  variables {
    runner_namespaces = ["runners", "others"]
  }

  assert {
    condition     = alltrue(flatten([for name, text in output.manifests : [for r in yamldecode(text).rules : toset(r.verbs) == toset(["get", "list", "watch"])] if startswith(name, "role/")]))
    error_message = "The dashboard may change something."
  }
  assert {
    condition     = contains(keys(output.manifests), "rolebinding/others")
    error_message = "It does not see the second namespace."
  }
}

run "its_origin_is_its_route" {
  command = plan

  variables {
    route = { kind = "gateway", host = "dashboard.example.org", gateway = { name = "public", namespace = "gateways" } }
  }

  assert {
    condition     = output.url == "https://dashboard.example.org" && contains([for e in yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].env : try(e.value, "")], "https://dashboard.example.org")
    error_message = "Forms would be refused: ORIGIN is not the route's host."
  }
}

run "refuses_latest" {
  command = plan

  variables {
    image = "registry.example.org/dashboard:latest"
  }
  expect_failures = [var.image]
}

run "without_a_certificate_its_origin_is_http" {
  command = plan

  variables {
    route = { kind = "ingress", host = "dashboard.example.org" }
  }

  assert {
    condition     = output.url == "http://dashboard.example.org" && contains([for e in yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].env : try(e.value, "")], output.url)
    error_message = "Forms would be refused: ORIGIN is not where browsers are."
  }
}
