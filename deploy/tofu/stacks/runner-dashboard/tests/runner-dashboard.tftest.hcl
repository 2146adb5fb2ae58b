# Run once for each tfvars file.
mock_provider "kubectl" {}

run "a_route_on_the_cluster_s_domain" {
  command = plan

  assert {
    condition     = output.url == "https://runner-dashboard.${var.domain}" && output.workloads == ["deployment/runner-dashboard"]
    error_message = "The dashboard is at ${output.url}."
  }
}
