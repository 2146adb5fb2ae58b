# Staging and production: what survives a node.
domain = "rigel.bates.edu"

routing = {
  kind    = "gateway"
  gateway = { name = "public", namespace = "gateway-system", section = "https" }
}
clients = ["bates-ils-runners-jobs", "bates-ils-runners-dind", "gitlab-runners-jobs"]

object_store = "minio"
minio        = { mode = "distributed", servers = 4, volumes_per_server = 4, volume_size = "50Gi" } # 800Gi raw
max_size     = "380GB"

postgresql = { instances = 3, size = "20Gi", wal_size = "5Gi", backups = "14d" }
replicas   = { min = 2, max = 10 }
pack_cache = { gib = 20 }
