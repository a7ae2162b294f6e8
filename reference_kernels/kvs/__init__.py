"""KV-centric scheduling: which cached tokens are read, and how the reading is cut into equal work."""
