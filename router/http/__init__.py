"""The hardened HTTP/1.1 server."""
