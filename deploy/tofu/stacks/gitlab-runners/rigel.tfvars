# Inside the cluster, where the policies of jobs and of the cache let them meet.
cache = { url = "http://attic-cache.attic-cache.svc:8080/main" }

runners = {
  attic-cache-docker = { type = "docker", token_secret = "attic-cache-docker-token" }
  attic-cache-nix    = { type = "nix", token_secret = "attic-cache-nix-token" }
}
