mock_provider "kubectl" {}

variables {
  namespace = "jobs"
}

run "jobs_reach_neither_the_cluster_nor_the_nodes_identity" {
  command = plan

  assert {
    condition     = yamldecode(output.manifests["networkpolicy"]).spec.ingress == [] && contains(yamldecode(output.manifests["networkpolicy"]).spec.egress[1].to[0].ipBlock.except, "169.254.0.0/16")
    error_message = "Jobs can be reached, or reach the metadata service."
  }
  assert {
    condition     = yamldecode(output.manifests["namespace"]).metadata.labels["pod-security.kubernetes.io/enforce"] == "baseline"
    error_message = "Jobs may be privileged."
  }
  assert {
    condition     = yamldecode(output.manifests["resourcequota"]).spec.hard["services.loadbalancers"] == "0"
    error_message = "Jobs may open the cluster to the outside."
  }
}

run "what_is_allowed_is_allowed" {
  command = plan

  variables {
    allowed = { cidrs = [{ cidr = "10.1.2.3/32", ports = [443] }], namespaces = { cache = [8080, 9092] } }
  }

  assert {
    condition     = length(yamldecode(output.manifests["networkpolicy"]).spec.egress) == 4 && length(yamldecode(output.manifests["networkpolicy"]).spec.egress[3].ports) == 2
    error_message = "The cache cannot be reached."
  }
}

run "a_namespace_that_is_there_is_left_alone" {
  command = plan

  variables {
    create_namespace = false
  }

  assert {
    condition     = !contains(keys(output.manifests), "namespace") && length(kubectl_manifest.namespace) == 0
    error_message = "The namespace would be taken over."
  }
}

run "refuses_to_open_the_metadata_service" {
  command = plan

  variables {
    forbidden_cidrs = ["10.0.0.0/8"]
  }
  expect_failures = [var.forbidden_cidrs]
}

run "refuses_an_unknown_level" {
  command = plan

  variables {
    pod_security = "none"
  }
  expect_failures = [var.pod_security]
}

run "refuses_an_ipv6_network_in_the_exceptions_of_ipv4" {
  command = plan

  variables {
    forbidden_cidrs = ["169.254.0.0/16", "fd00::/8"]
  }
  expect_failures = [var.forbidden_cidrs]
}

run "refuses_to_forbid_everything" {
  command = plan

  variables {
    forbidden_cidrs = ["169.254.0.0/16", "0.0.0.0/0"]
  }
  expect_failures = [var.forbidden_cidrs]
}

run "refuses_to_open_every_port_of_a_namespace" {
  command = plan

  variables {
    allowed = { namespaces = { cache = [] } }
  }
  expect_failures = [var.allowed]
}

run "refuses_port_0" {
  command = plan

  variables {
    allowed = { cidrs = [{ cidr = "10.1.2.3/32", ports = [0] }] }
  }
  expect_failures = [var.allowed]
}

run "refuses_what_is_no_quantity" {
  command = plan

  variables {
    quota = { memory_limits = "256GB" }
  }
  expect_failures = [var.quota]
}

run "refuses_limits_that_are_no_quantities" {
  command = plan

  variables {
    limits = { max_memory = "32 Gi" }
  }
  expect_failures = [var.limits]
}
