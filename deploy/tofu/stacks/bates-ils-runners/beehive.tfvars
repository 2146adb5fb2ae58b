# group_id: -var group_id=…
# Inside the cluster, where the policies of jobs and of the cache let them meet.
cache = { url = "http://attic-cache.attic-cache.svc:8080/main" }

runners = {
  docker = { concurrent = 5, max = 2 }
  dind   = { concurrent = 3, max = 2 }
  rocky8 = { concurrent = 3, max = 2 }
  rocky9 = { concurrent = 3, max = 2 }
  nix    = { concurrent = 4, max = 2, cpu = "2", memory = "4Gi", limit = "8Gi" }
}
quota = {
  jobs = { pods = 30, cpu_requests = "24", memory_requests = "64Gi", memory_limits = "128Gi" }
  dind = { pods = 10, cpu_requests = "8", memory_requests = "16Gi", memory_limits = "32Gi" }
}
