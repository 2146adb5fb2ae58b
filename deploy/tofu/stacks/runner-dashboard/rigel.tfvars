domain  = "rigel.bates.edu"
gateway = { name = "public", namespace = "gateway-system", section = "https" }
