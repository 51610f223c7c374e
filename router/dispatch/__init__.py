"""Carrying a plan out: the sans-IO attempt machine and the thin shells that do its I/O."""
