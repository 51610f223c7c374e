"""The published language: what an endpoint must speak so that requests can be routed to it."""
