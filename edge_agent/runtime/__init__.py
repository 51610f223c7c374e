"""How a model package is loaded, warmed, run and unloaded, at the edge and in the cloud alike."""
