cache = { url = "https://attic-cache.beehive.bates.edu/main" }

runners = {
  attic-cache-docker = { type = "docker", token_secret = "attic-cache-docker-token" }
  attic-cache-nix    = { type = "nix", token_secret = "attic-cache-nix-token" }
}
