# project_id comes from CI_PROJECT_ID: -var project_id=…
environments = {
  attic-cache = { environment = "development" }
}
review = { tier = "development", prefix = "attic-cache-review-" }
