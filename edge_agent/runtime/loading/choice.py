"""Which variant of a package runs best on this machine: measured once, then remembered.

The first load of a package with several variants asks each its warm-up samples, in turns, and takes
the fastest; near ties go to the manifest's order. What was found is kept beside the package's
directory, and in memory where that cannot be written, until its files, the engines, the cores for
one call, or the processor are others.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from isochrone.edge_agent.runtime.calls.model import Model
from isochrone.edge_agent.runtime.engines.table import installed, lack
from isochrone.edge_agent.runtime.loading import kept_note, warmup
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.loading.stopwatch import Stopwatch, Timed, medians_s
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.process import freed_memory, log
from isochrone.router.process.clock import Clock

TOGETHER_BYTES = 16 << 20
"""Of files: variants that are larger in sum are measured one after another, never side by side."""
_ROUNDS = 15
_MOST_S = 0.2
"""How long all variants of a package are asked, above one round."""
_NEAR = 1.05
"""Within this factor of the fastest, variants are equally fast."""
Start = Callable[[Package, Variant, Executor, int], Model]
"""Gives a variant's model, warm, whose work runs in that executor on so many cores."""
_NONE_PINNED: Mapping[str, str] = {}
_log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The variant that was fastest, the median seconds of each, and for what that is true."""

    variant: str
    seconds: dict[str, float]
    holds_for: str


@dataclass(frozen=True, slots=True)
class _Case:
    """What the choice depends on, and how a variant is loaded."""

    package: Package
    variants: tuple[Variant, ...]
    threads: int
    begin: Start

    @property
    def note(self) -> Path:
        """Where the choice is kept."""
        return kept_note.place(self.package, "variant")

    def fingerprint(self) -> str:
        """Names the files, the engines, the cores for one call, and the processor."""
        return kept_note.fingerprint(self.variants, self.threads)


class Choices:
    """Chooses variants, and remembers. Called from one thread at a time."""

    def __init__(
        self,
        clock: Clock,
        together_bytes: int = TOGETHER_BYTES,
        pinned: Mapping[str, str] = _NONE_PINNED,
        most_bytes: int = sys.maxsize,
    ) -> None:
        """`together_bytes`: what variants' files may take in sum to be measured side by side.

        `pinned`: by model, the variant to take without measuring, where a person said so. A variant
        of more than `most_bytes` is none to choose, unless all are.
        """
        self._clock = clock
        self._most_bytes = most_bytes
        self._together_bytes = min(together_bytes, most_bytes)
        self._pinned = pinned
        self._found: dict[Path, Found] = {}
        self._chosen: dict[Path, str] = {}

    def chosen(self, package: Package) -> str | None:
        """The name of the variant that was chosen last; None where none was yet."""
        return self._chosen.get(package.path)

    def needs_bytes(self, package: Package, threads: int = 1) -> int:
        """What loading a package has in memory at once: all that is measured side by side.

        Of files, and at most: which of them can run here is not found out yet.
        """
        variants = self._fitting(_expected(package))
        found = self._remembered(_Case(package, variants, threads, start))
        name = self._pinned.get(package.name) or (found.variant if found else None)
        sizes = [one.bytes for one in package.manifest.variants if one.name == name]
        sizes = sizes or [one.bytes for one in variants]
        return sum(sizes) if sum(sizes) <= self._together_bytes else max(sizes)

    def choose(self, package: Package, threads: int = 1, begin: Start = start) -> Variant:
        """The variant to load. Blocks where it has to be measured; must run outside any event loop.

        What is measured is loaded by `begin`.

        Raises:
            PackageError: none can run here, or not the pinned one; the message says why.
        """
        variant = self._choose(package, threads, begin)
        self._chosen[package.path] = variant.name
        return variant

    def _choose(self, package: Package, threads: int, begin: Start) -> Variant:
        if package.name in self._pinned:
            return _named(package, self._pinned[package.name])
        variants = self._fitting(contenders(package))
        if len(variants) == 1:
            return variants[0]
        case = _Case(package, variants, threads, begin)
        found = self._remembered(case)
        if found is None:
            found = self._measured(case)
            if found is None:
                return variants[0]  # whoever loads it hears why it cannot be
            self._remember(case, found)
        return next(one for one in variants if one.name == found.variant)

    def _fitting(self, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        return tuple(one for one in variants if one.bytes <= self._most_bytes) or variants

    def _remembered(self, case: _Case) -> Found | None:
        found = self._found.get(case.note) or kept_note.read(case.note, Found)
        if found is None or found.holds_for != case.fingerprint():
            return None
        return found if found.variant in {one.name for one in case.variants} else None

    def _remember(self, case: _Case, found: Found) -> None:
        """On disk only where every variant was measured: what failed now may be well tomorrow."""
        self._found[case.note] = found
        log.event(
            _log,
            "variant_chosen",
            model=case.package.name,
            version=case.package.version,
            variant=found.variant,
            seconds=" ".join(f"{name}={each_s:.6f}" for name, each_s in found.seconds.items()),
        )
        if len(found.seconds) < len(case.variants):
            return
        kept_note.write(case.note, found)

    def _measured(self, case: _Case) -> Found | None:
        """None where no variant can be loaded."""
        sizes = sum(one.bytes for one in case.variants)
        together = sizes <= self._together_bytes
        heats = [case.variants] if together else [(one,) for one in case.variants]
        seconds: dict[str, float] = {}
        for heat in heats:
            seconds.update(self._heat(case, heat))
        freed_memory.give_back()
        if not seconds:
            return None
        fastest_s = min(seconds.values())
        variant = next(name for name, each_s in seconds.items() if each_s <= fastest_s * _NEAR)
        return Found(variant, seconds, case.fingerprint())

    def _heat(self, case: _Case, variants: Sequence[Variant]) -> dict[str, float]:
        """The median seconds of those that can be loaded, while all of these are in memory."""
        with ExitStack() as loaded:
            timed: dict[str, Timed] = {}
            for variant in variants:
                one = self._warm(case, variant)
                if one is not None:
                    timed[variant.name] = one
                    loaded.callback(one.model.shutdown)
            medians = medians_s(list(timed.values()), rounds=_ROUNDS, most_s=_MOST_S)
        return dict(zip(timed, medians, strict=True))

    def _warm(self, case: _Case, variant: Variant) -> Timed | None:
        stopwatch = Stopwatch(self._clock)
        try:
            model = case.begin(case.package, variant, stopwatch, case.threads)
        except (
            Exception
        ) as error:  # whatever an engine may raise, the other variants can do without
            told = {"model": case.package.name, "variant": variant.name, "error": repr(error)}
            log.event(_log, "variant_unusable", level=logging.WARNING, **told)
            return None
        return Timed(model, warmup.samples(case.package.manifest, case.package), stopwatch)


def contenders(package: Package) -> tuple[Variant, ...]:
    """The variants to choose from, in the manifest's order: those that can run here.

    But torch, which takes 170 MB by itself, is not begun with where another engine can do it.

    Raises:
        PackageError: none can run here; the message says what each lacks.
    """
    able = tuple(variant for variant in _light(package) if lack(variant) is None)
    if able:
        return able
    lacking = {variant.name: lack(variant) for variant in package.manifest.variants}
    able = tuple(one for one in package.manifest.variants if lacking[one.name] is None)
    if able:
        return able
    reasons = "; ".join(f"variant {name} {text}" for name, text in lacking.items())
    raise PackageError(f"{package.path}: cannot run here: {reasons}")


def _named(package: Package, name: str) -> Variant:
    variant = next((one for one in package.manifest.variants if one.name == name), None)
    if variant is None:
        there = ", ".join(one.name for one in package.manifest.variants)
        raise PackageError(
            f"{package.path}: has no variant {name}, which is pinned; it has {there}"
        )
    missing = lack(variant)
    if missing is not None:
        raise PackageError(f"{package.path}: variant {name}, which is pinned, {missing}")
    return variant


def likely(package: Package) -> Variant:
    """The variant to expect before any was chosen; nothing is imported to find out."""
    return _expected(package)[0]


def _expected(package: Package) -> tuple[Variant, ...]:
    """Those to choose from, and perhaps others that turn out not to run here."""
    variants = package.manifest.variants
    light = tuple(filter(installed, _light(package)))
    return light or tuple(filter(installed, variants)) or variants


def _light(package: Package) -> tuple[Variant, ...]:
    """The variants whose engine takes little, or is worth it: it is in memory, or a GPU is here."""
    torch_is_fine = "torch" in sys.modules or kept_note.has_gpu()
    return tuple(v for v in package.manifest.variants if v.engine != "torch" or torch_is_fine)
