"""Which version of a model serves, and which did before: kept across restarts in one small file.

A change is written and synced as a draft first, so that a full disk is noticed while the old
version still serves; what is left to do then is one rename.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from isochrone.edge_agent.artefacts.partial import unwritable
from isochrone.edge_agent.runtime.package.durable import sync, write_through
from isochrone.router.process import log

FILE = ".active.json"
_DRAFT = f"{FILE}.draft"
_MAX_BYTES = 1 << 20
_log = logging.getLogger("isochrone.agent.models")


class Activation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The version that calls without a version get, and the one to go back to."""

    active: str
    previous: str | None = None


class Activations:
    """What was chosen for the models of one directory. Blocking."""

    def __init__(self, root: Path) -> None:
        """A file that cannot be read is told in the log: then nothing is chosen."""
        self._root = root
        self._chosen = _read(root / FILE)

    def active(self) -> dict[str, str]:
        """The active version of every model that one was chosen for."""
        return {name: choice.active for name, choice in self._chosen.items()}

    def get(self, name: str) -> Activation | None:
        """What was chosen for a model."""
        return self._chosen.get(name)

    def draft(self, name: str, choice: Activation) -> Callable[[], None]:
        """Have a choice on the disk, where it does not count before what this gives is called.

        Raises:
            NoSpace, PackageError: it cannot be written.
        """
        chosen = {**self._chosen, name: choice}
        path = self._root / _DRAFT
        try:
            write_through(path, msgspec.json.format(msgspec.json.encode(chosen), indent=2) + b"\n")
        except OSError as error:
            raise unwritable(path, error) from error
        return partial(self.commit, chosen)

    def commit(self, chosen: dict[str, Activation]) -> None:
        """Have the draft count, also after a power cut.

        Raises:
            NoSpace, PackageError: it cannot be renamed.
        """
        path = self._root / FILE
        try:
            (self._root / _DRAFT).rename(path)
            sync(self._root)
        except OSError as error:
            raise unwritable(path, error) from error
        self._chosen = chosen


def _read(path: Path) -> dict[str, Activation]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=dict[str, Activation])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        text = f"{path}: {error}; the highest versions serve; choose again with isochrone models"
        log.event(_log, "activations_unreadable", level=logging.ERROR, error=text)
        return {}
