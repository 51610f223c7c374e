"""Engines behind the `Model` protocol: ONNX, torch, a process of its own."""
