"""From a draft to a package on disk: alone, to be judged; or beside its source, for good."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from isochrone.deploy.packages.draft import Draft
from isochrone.edge_agent.runtime.package.manifest import SUFFIX, Variant
from isochrone.edge_agent.runtime.package.package import (
    Package,
    PackageError,
    described,
    write_package,
)


@contextmanager
def only(package: Package, draft: Draft, name: str) -> Iterator[tuple[Package, Variant]]:
    """A package with the samples of `package` and no variant but a draft; it is gone afterwards.

    Raises:
        PackageError: it cannot be written, or the block raised one: without the temporary path.
    """
    variant = _variant(draft, name)
    manifest = msgspec.structs.replace(package.manifest, variants=(variant,))
    files = {**package.kept_files(), variant.file: draft.data}
    with tempfile.TemporaryDirectory(prefix="isochrone-") as folder:
        try:
            yield write_package(Path(folder), manifest, files), variant
        except PackageError as error:
            raise PackageError(error.message.replace(f"{folder}/", "")) from error


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
