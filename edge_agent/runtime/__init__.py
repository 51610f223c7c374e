"""How a model package is loaded, warmed, run and unloaded, on an edge machine and in the cloud alike."""
