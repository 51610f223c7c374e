"""Whether a package keeps its promises: digests, loading, warm-up, and variants that agree."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np

from isochrone.edge_agent.runtime.engines.table import lack
from isochrone.edge_agent.runtime.loading import warmup
from isochrone.edge_agent.runtime.loading.proven import broken_promise
from isochrone.edge_agent.runtime.loading.start import start
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.process.clock import monotonic
from isochrone.router.wire.message import InferResponse
from isochrone.router.wire.tensor import Tensor


def problems(package: Package) -> list[str]:
    """Everything that is wrong with a package, each with its file and remedy. Blocks.

    A variant that cannot run on this machine is held to its digest only.
    """
    wrong: list[str] = []
    answers: dict[str, list[InferResponse]] = {}
    with ThreadPoolExecutor(1) as executor:
        for variant in package.manifest.variants:
            try:
                package.read(variant)
                if lack(variant) is None:
                    answers[variant.name] = answers_to_samples(package, variant, executor)
                    wrong += _broken_promises(package, variant)
            except PackageError as error:
                wrong.append(error.message)
            except Exception as error:  # whatever an engine may raise for a file is a problem of it
                wrong.append(_failure(package, variant, error))
    return [*wrong, *_disagreements(package, answers)]


def answers_to_samples(
    package: Package, variant: Variant, executor: Executor
) -> list[InferResponse]:
    """Every part of a variant's answers to the package's warm-up samples. Blocks."""
    model = start(package, variant, executor)
    try:
        return asyncio.run(warmup.answers(model.request, package))
    finally:
        model.shutdown()


def _broken_promises(package: Package, variant: Variant) -> Iterator[str]:
    reason = broken_promise(package, variant, monotonic)
    if reason is not None:
        yield (
            f"{package.path}: variant {variant.name} says batch: rows, but {reason};"
            " say batch: none, or build it again"
        )


def _failure(package: Package, variant: Variant, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"{package.file(variant)}: cannot be loaded or asked here ({reason});"
        " build the package again, or try on a machine with more memory"
    )


def _disagreements(package: Package, answers: dict[str, list[InferResponse]]) -> Iterator[str]:
    variants = [one for one in package.manifest.variants if one.name in answers]
    for variant in variants[1:]:
        first, other = variants[0], variant
        tolerance = package.manifest.tolerance + _deviation(first) + _deviation(other)
        if not _alike(answers[first.name], answers[other.name], tolerance):
            yield (
                f"{package.path}: variants {first.name} and {other.name} differ by more than"
                f" tolerance {tolerance:g}; correct the weaker one, or raise tolerance"
            )


def _deviation(variant: Variant) -> float:
    """How far from its source a variant was found to be when it was made."""
    return variant.made.deviation if variant.made else 0.0


def _alike(
    some: Sequence[InferResponse], others: Sequence[InferResponse], tolerance: float
) -> bool:
    return len(some) == len(others) and all(
        _close(one, other, tolerance)
        for part, counterpart in zip(some, others, strict=True)
        for one, other in zip(part.outputs, counterpart.outputs, strict=True)
    )


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    if one.data.dtype == object:
        return float((one.data != other.data).any()) <= tolerance  # as `Made.deviation` counts it
    return bool(np.allclose(one.data, other.data, rtol=tolerance, atol=tolerance))
