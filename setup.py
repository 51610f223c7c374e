"""Installs every part inside one import package. The metadata is in `pyproject.toml`."""

from setuptools import find_packages, setup

_PARTS = ("router", "edge_agent", "cloud", "deploy")

setup(
    packages=[f"isochrone.{name}" for name in find_packages(include=[f"{p}*" for p in _PARTS])],
    package_dir={f"isochrone.{part}": part for part in _PARTS},
)
