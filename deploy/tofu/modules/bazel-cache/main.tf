# The same server with a policy for Bazel: what is rebuilt in minutes is kept for
# days, under a limit, and most of it is read from the replicas' own disks. It has
# a store of its own, so that Bazel's churn never evicts a Nix path.
module "server" {
  source = "../cache-server"

  name              = var.name
  namespace         = var.namespace
  image             = var.image
  image_pull_secret = var.image_pull_secret
  labels            = var.labels
  single            = var.single
  database          = var.database
  object_store      = var.object_store
  replicas          = var.replicas
  pack_cache        = var.pack_cache
  bazel_retention   = var.bazel_retention
  max_size          = var.max_size
  config            = var.config
  config_secret     = var.config_secret
  routing           = var.routing
  network           = var.network
  monitoring        = var.monitoring
  wait              = var.wait

  # Clients of Nix are served, too, but briefly.
  retention = var.bazel_retention
}
