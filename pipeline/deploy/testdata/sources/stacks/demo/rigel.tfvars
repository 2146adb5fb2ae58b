text = "one"
