"""Makes variants of a model package: other engines, fewer bits, fewer rows, smaller networks."""

from edge_agent.runtime import ort

__all__ = ["ort"]
"""Before any module in here: what onnxruntime is not to do must be said before its first import."""
