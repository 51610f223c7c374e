"""The way to an endpoint: HTTP/1.1 client, connection pools, header rewriting."""
