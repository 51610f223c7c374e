"""The cloud tier: the same model packages, through the same runtime, on Ray Serve."""
