mock_provider "kubectl" {}

variables {
  name      = "cache"
  namespace = "cache"
}

run "a_name_and_an_address" {
  command = plan

  variables {
    records = {
      "cache.example.org"  = { targets = ["gateway.example.org"] }
      "cache2.example.org" = { type = "A", targets = ["192.0.2.1", "192.0.2.2"], ttl = 60 }
    }
  }

  assert {
    condition     = yamldecode(output.manifests["endpoint"]).spec.endpoints[0] == { dnsName = "cache.example.org", recordType = "CNAME", recordTTL = 300, targets = ["gateway.example.org"] }
    error_message = "The first record is another."
  }
  assert {
    condition     = length(yamldecode(output.manifests["endpoint"]).spec.endpoints) == 2
    error_message = "A record is missing."
  }
}

run "refuses_a_cname_with_two_targets" {
  command = plan

  variables {
    records = { "cache.example.org" = { targets = ["a.example.org", "b.example.org"] } }
  }
  expect_failures = [var.records]
}

run "refuses_a_name_as_an_address" {
  command = plan

  variables {
    records = { "cache.example.org" = { type = "A", targets = ["a.example.org"] } }
  }
  expect_failures = [var.records]
}

run "refuses_a_url_as_a_name" {
  command = plan

  variables {
    records = { "https://cache.example.org" = { targets = ["a.example.org"] } }
  }
  expect_failures = [var.records]
}

run "refuses_an_address_of_the_other_kind" {
  command = plan

  variables {
    records = { "cache.example.org" = { type = "A", targets = ["2001:db8::1"] } }
  }
  expect_failures = [var.records]
}

run "refuses_a_name_as_an_ipv6_address" {
  command = plan

  variables {
    records = { "cache.example.org" = { type = "AAAA", targets = ["a.example.org"] } }
  }
  expect_failures = [var.records]
}

run "refuses_an_address_as_a_name" {
  command = plan

  variables {
    records = { "cache.example.org" = { targets = ["192.0.2.1"] } }
  }
  expect_failures = [var.records]
}

run "refuses_half_a_second" {
  command = plan

  variables {
    records = { "cache.example.org" = { targets = ["a.example.org"], ttl = 60.5 } }
  }
  expect_failures = [var.records]
}
