"""How many rows of a variant may share a run: found out once on this machine, then remembered."""

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from isochrone.edge_agent.runtime.calls.lanes import MAX_BATCH, NONE_SHARED, Sharing
from isochrone.edge_agent.runtime.calls.model import DirectModel, Feed
from isochrone.edge_agent.runtime.calls.rows import by_rows
from isochrone.edge_agent.runtime.engines.table import NEEDS, engine
from isochrone.edge_agent.runtime.loading import kept_note
from isochrone.edge_agent.runtime.loading.coupling import coupled_by
from isochrone.edge_agent.runtime.loading.row_proof import Bounds, RowProof, prove
from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch
from isochrone.edge_agent.runtime.package.checked import checked_copy
from isochrone.edge_agent.runtime.package.manifest import BatchMeasured, Variant
from isochrone.edge_agent.runtime.package.package import Package
from isochrone.router.process import freed_memory, log
from isochrone.router.process.clock import Clock

_AT_BUILD = Bounds(MAX_BATCH, most_s=60.0, most_bytes=1 << 30)
_AT_LOAD_S, _AT_LOAD_BYTES = 3.0, 256 << 20
_TOLERANCE = 1e-3
"""Whatever the package allows its variants, numbers of 32 bits agree as well as this."""
_COARSE = ("fp16", "bf16")
_PROOF = 2
"""Raised when the proof changes: what older ones found is not believed."""
_log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that may share a run, why no more, and for what that is true."""

    rows: int
    reason: str
    holds_for: str


def proof(
    package: Package, variant: Variant, bounds: Bounds, clock: Clock, threads: int = 1
) -> RowProof:
    """Load a variant and try out how many rows may share a run. Blocks.

    Raises:
        PackageError: it cannot be loaded.
        MemoryError: it does not fit.
    """
    if package.manifest.generate or not by_rows((*package.takes, *package.gives)):
        return RowProof(1, 0, "its inputs and outputs do not all begin with an open size", True)
    if {spec.name for spec in package.takes} != {
        one.name for one in package.manifest.warm_up[0].inputs
    }:
        return RowProof(1, 0, "its warm-up sample leaves inputs out")
    if variant.engine == "onnx":
        with checked_copy(package, variant) as file:
            node = coupled_by(file.content)
        if node is not None:
            return RowProof(1, 0, f"its graph holds {node}", True)
    model = engine(variant.engine).build(package, variant, Stopwatch(clock), threads)
    try:
        model.startup()
        assert isinstance(model, DirectModel)
        return _proof(package, variant, model, bounds, clock)
    finally:
        model.shutdown()
        freed_memory.give_back()


def _proof(
    package: Package, variant: Variant, model: DirectModel, bounds: Bounds, clock: Clock
) -> RowProof:
    tolerance = package.manifest.tolerance
    return prove(
        lambda arrays: model.compute(Feed(arrays, model.gives)),
        package.takes,
        [{one.name: one.shape for one in sample.inputs} for sample in package.manifest.warm_up],
        tolerance if variant.precision in _COARSE else min(tolerance, _TOLERANCE),
        bounds,
        clock,
    )


def stamped(package: Package, variant: Variant, clock: Clock) -> Variant:
    """The variant with what a proof found, for its manifest.

    Raises:
        PackageError, MemoryError: as `proof`.
    """
    found = proof(package, variant, _AT_BUILD, clock)
    distribution = NEEDS[variant.engine][0]
    measured = BatchMeasured(
        rows=found.rows,
        runs=found.runs,
        on=f"made-up rows, {distribution} {version(distribution)}",
        reason=found.reason,
    )
    return msgspec.structs.replace(
        variant, batch="rows" if found.rows > 1 else "none", batch_measured=measured
    )


def broken_promise(package: Package, variant: Variant, clock: Clock) -> str | None:
    """Why calls may not share runs of a variant whose manifest says that they may.

    Raises:
        PackageError, MemoryError: as `proof`.
    """
    if variant.batch != "rows":
        return None
    found = proof(package, variant, _AT_BUILD, clock)
    return found.reason if found.refuted else None


@dataclass(frozen=True, slots=True)
class _Case:
    package: Package
    variant: Variant
    threads: int
    most_rows: int

    @property
    def note(self) -> Path:
        return kept_note.place(self.package, f"batch-{self.variant.name}")

    def fingerprint(self) -> str:
        says = self.variant.batch, self.variant.batch_measured, self.package.manifest.tolerance
        return kept_note.fingerprint(
            [self.variant],
            self.threads,
            _PROOF,
            self.most_rows,
            says,
            self.package.manifest.warm_up,
        )


class Proofs:
    """Finds out, and remembers. Called from one thread at a time."""

    def __init__(self, clock: Clock, sharing: Sharing = NONE_SHARED) -> None:
        self._clock = clock
        self._sharing = sharing
        self._found: dict[Path, Found] = {}

    def most_rows(self, package: Package, variant: Variant, threads: int = 1) -> int:
        """How many rows of a variant may share a run; 1 where it is not proven. Blocks.

        What the manifest says is tried out all the same, once: it may forbid, and it counts where
        there is no time for a proof that is whole.
        """
        most = self._sharing.most_rows(package.name)
        if most < 2 or variant.batch == "none" or package.manifest.generate is not None:
            return 1
        case = _Case(package, variant, threads, most)
        found = self._found.get(case.note) or kept_note.read(case.note, Found)
        if found is None or found.holds_for != case.fingerprint():
            found = self._prove(case)
        self._found[case.note] = found
        return found.rows

    def _prove(self, case: _Case) -> Found:
        bounds = Bounds(case.most_rows, _AT_LOAD_S, _AT_LOAD_BYTES)
        try:
            tried = proof(case.package, case.variant, bounds, self._clock, case.threads)
        except Exception as error:  # whatever an engine raises: the load itself says what is wrong
            return Found(1, repr(error), "")
        measured = case.variant.batch_measured
        rows = tried.rows
        if case.variant.batch == "rows" and measured is not None and not tried.refuted:
            rows = max(rows, min(measured.rows, case.most_rows))
        found = Found(rows, tried.reason, case.fingerprint())
        log.event(
            _log,
            "batch_proven",
            model=case.package.name,
            version=case.package.version,
            variant=case.variant.name,
            rows=rows,
            runs=tried.runs,
            reason=tried.reason,
        )
        kept_note.write(case.note, found)
        return found
