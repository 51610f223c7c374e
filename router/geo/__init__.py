"""Places: regions and their distances, where a client is, and how far an endpoint is."""
