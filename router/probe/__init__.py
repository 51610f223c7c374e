"""Probes, wake-ups and sample calls."""
