"""The model package on disk: manifest, digests, files."""
