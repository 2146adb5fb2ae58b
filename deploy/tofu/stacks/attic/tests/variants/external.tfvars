domain               = "example.org"
use_minio            = false
s3_endpoint          = "https://s3.example.org"
s3_bucket_name       = "packs"
s3_access_key_id     = "id"
s3_secret_access_key = "key"
routing              = { kind = "ingress", ingress_class = "nginx", ingress_controller = "nginx" }
create_namespace     = true
deployer             = { group = "gitlab:project_env_tier:1:development" }
postgresql           = { name = "db-2", backups = "7d", backup_method = "plugin", restore = { name = "attic-cache-db" } }
config               = "[[cache]]\nname = \"team\"\n"
config_secret        = "keys"
