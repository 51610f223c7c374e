"""From a draft to a package on disk: alone, to be judged; or beside its source, for good."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from deploy.variants.draft import Draft
from edge_agent.runtime.manifest import SUFFIX, Variant
from edge_agent.runtime.package import Package, described, write_package


@contextmanager
def only(package: Package, draft: Draft, name: str) -> Iterator[tuple[Package, Variant]]:
    """A package that holds nothing but a draft; it is gone afterwards.

    Raises:
        PackageError: it cannot be written.
    """
    variant = _variant(draft, name)
    manifest = msgspec.structs.replace(package.manifest, variants=(variant,))
    with tempfile.TemporaryDirectory(prefix="isochrone-") as folder:
        yield write_package(Path(folder), manifest, {variant.file: draft.data}), variant


def _variant(draft: Draft, name: str) -> Variant:
    """The draft as a manifest names it."""
    return described(
        draft.data,
        name=name,
        engine=draft.engine,
        file=f"{name}{SUFFIX[draft.engine]}",
        precision=draft.precision,
        architecture=draft.architecture,
    )
