# group_id: -var group_id=…
# Inside the cluster, where the policies of jobs and of the cache let them meet.
cache = { url = "http://attic-cache.attic-cache.svc:8080/main" }

runners = {
  docker = { concurrent = 10, min = 2, max = 5 }
  dind   = { concurrent = 5, min = 1, max = 5 }
  rocky8 = { concurrent = 5, min = 1, max = 3 }
  rocky9 = { concurrent = 5, min = 1, max = 3 }
  nix    = { concurrent = 8, min = 2, max = 5, cpu = "2", memory = "4Gi", limit = "16Gi" }
}
quota = {
  jobs = { pods = 120, cpu_requests = "128", memory_requests = "256Gi", memory_limits = "768Gi" }
  dind = { pods = 25, cpu_requests = "32", memory_requests = "64Gi", memory_limits = "128Gi" }
}
