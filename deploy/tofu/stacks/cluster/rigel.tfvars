# project_id comes from CI_PROJECT_ID: -var project_id=…
environments = {
  attic-cache         = { environment = "production" }
  attic-cache-staging = { environment = "staging" }
}
