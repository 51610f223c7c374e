"""onnxruntime, told first to keep no notes for telemetry: it listens only when it is imported."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251  # it takes it from nowhere else

import onnxruntime  # not before the line above
from onnxruntime.capi import onnxruntime_pybind11_state as state  # likewise

__all__ = ["onnxruntime", "state"]
