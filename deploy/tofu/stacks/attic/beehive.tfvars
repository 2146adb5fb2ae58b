# Development and review: small, and on one node's volumes.
domain = "beehive.bates.edu"

routing = {
  kind    = "gateway"
  gateway = { name = "public", namespace = "gateway-system", section = "https" }
}
clients = ["bates-ils-runners-jobs", "bates-ils-runners-dind", "gitlab-runners-jobs"]

object_store = "minio"
minio        = { mode = "standalone" } # 1 x 10Gi
max_size     = "8GB"

postgresql = { instances = 1, size = "5Gi" }
replicas   = { min = 1, max = 3 }
pack_cache = { gib = 5 }
retention  = "14d"
