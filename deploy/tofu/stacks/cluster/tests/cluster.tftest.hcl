# Run once for each tfvars file.
mock_provider "kubectl" {}

variables {
  project_id = 42
}

run "rights_and_no_operators" {
  command = plan

  assert {
    condition     = contains(values(output.groups), var.review == null ? "gitlab:project_env:42:production" : "gitlab:project_env:42:development")
    error_message = "The groups are ${join(", ", values(output.groups))}."
  }
  assert {
    condition     = (var.review == null) == (output.deployer.group == "") && output.images == []
    error_message = "There are rights for review environments on a cluster without them, or none on one with."
  }
  assert {
    condition = alltrue([
      for name, text in output.manifests : contains(keys(output.groups), yamldecode(text).metadata.namespace)
      if can(yamldecode(text).metadata.namespace)
    ])
    error_message = "On a new cluster it fails: an object is in a namespace that nobody has made yet."
  }
}

run "operators_from_files" {
  command = plan

  variables {
    operators   = { cnpg = "../../modules/cnpg-operator/tests/testdata/release.yaml", minio = "../../modules/minio-operator/tests/testdata/release.yaml" }
    cnpg_sha256 = null
  }

  assert {
    condition     = length(output.images) == 2
    error_message = "An operator is missing."
  }
}
