"""Models in memory: versions, keep-alive, eviction."""
