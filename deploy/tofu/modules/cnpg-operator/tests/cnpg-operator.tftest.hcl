mock_provider "kubectl" {}

variables {
  manifest_file = "tests/testdata/release.yaml"
}

run "all_of_the_release_is_applied" {
  command = plan

  variables {
    labels = { team = "ils" }
  }

  assert {
    condition     = length(output.manifests) == 4 && join(" ", output.images) == "registry.example.org/operator:1.0"
    error_message = "The objects are ${join(", ", keys(output.manifests))}."
  }
  assert {
    condition     = alltrue([for text in values(output.manifests) : yamldecode(text).metadata.labels.team == "ils"])
    error_message = "An object lacks the labels."
  }
}

run "what_holds_data_survives_destroy" {
  command = plan

  assert {
    condition     = alltrue([for m in values(kubectl_manifest.definition) : m.apply_only]) && length(kubectl_manifest.definition) == 1 && alltrue([for m in values(kubectl_manifest.namespace) : m.apply_only])
    error_message = "Destroying the stack would delete all objects of the operator's kinds."
  }
}

run "refuses_another_file_than_the_release" {
  command = plan

  variables {
    manifest_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  }
  expect_failures = [var.manifest_sha256]
}

run "refuses_a_file_that_is_not_there" {
  command = plan

  variables {
    manifest_file = "nowhere.yaml"
  }
  expect_failures = [var.manifest_file]
}
