domain       = "example.org"
object_store = "seaweedfs"
seaweedfs    = { masters = 3, volume_servers = 3, gateways = 2, replication = "001", volume_size = "50Gi" }
routing      = { kind = "ingress", ingress_class = "traefik", ingress_controller = "traefik", tls_secret = "tls" }
bazel_cache  = {}
dns_target   = "192.0.2.1"
postgresql   = { instances = 3, wal_size = "5Gi", backups = "14d" }
