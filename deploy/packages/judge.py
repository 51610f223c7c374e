"""Makes a variant, measures it beside the one it was made from, and keeps it if it is better."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from isochrone.deploy.packages.arguments import NOT_KEPT
from isochrone.deploy.packages.dataset import LEAST_CARRIED, Dataset, Requests, carried, read
from isochrone.deploy.packages.draft import Draft, Source
from isochrone.deploy.packages.measure import compared, made_up_for
from isochrone.deploy.packages.measure import deviation as measured_deviation
from isochrone.deploy.packages.package_name import check_name
from isochrone.deploy.packages.verdict import Comparison, Side, against, told
from isochrone.deploy.packages.write import only
from isochrone.deploy.result import output_folder, tell
from isochrone.edge_agent.runtime.engines.table import lack
from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.loading.proven import stamped
from isochrone.edge_agent.runtime.package.manifest import KeepIf, Made, Variant
from isochrone.edge_agent.runtime.package.package import (
    SIGNATURE,
    Package,
    PackageError,
    add_variant,
    open_package,
    write_package,
)
from isochrone.router.errors import BadRequest, ConfigError
from isochrone.router.process.clock import monotonic

Make = Callable[[Source, argparse.Namespace], Draft]
"""From a source and the command line to a variant that nobody has judged yet."""
Called = Callable[[Variant, argparse.Namespace], str]
"""What a variant made of another one is called, where the command line does not say."""


_UNPROVEN = (
    "made-up inputs show what it costs, not what it loses on yours: give --evaluation FILE, or a"
    f" package with {LEAST_CARRIED} samples that were given, or --keep-unproven"
)


@dataclass(frozen=True, slots=True)
class _Case:
    """One run of the command: what from, judged how, under which rule."""

    source: Source
    judged_on: Dataset | Requests
    rule: KeepIf


def judged(
    args: argparse.Namespace,
    make: Make,
    called: Called,
    *,
    engine: str | None = None,
    data: str = "--data",
) -> int:
    """Make a variant from one of `engine`; 0 where it was kept, 3 where it was not.

    `data` names the option that `args.data` comes from.
    """
    case = _case(args, engine, data)
    name = args.called or called(case.source.variant, args)
    _check_free(args, case.source.package, name)
    draft = make(case.source, args)
    _say(f"measuring {name} beside {case.source.variant.name}")
    with only(case.source.package, draft, name) as (package, variant):
        for problem in verify.problems(package):
            raise PackageError(problem)
        proven = stamped(package, variant, monotonic)
        comparison = _compared(case, draft, (package, variant))
    reasons = against(comparison, case.rule)
    if case.judged_on.evaluation == "made-up inputs" and not (draft.exact or args.keep_unproven):
        reasons.append(_UNPROVEN)
    kept = None if reasons else _keep(args, case, draft, proven, comparison)
    tell(
        args,
        _result(draft, case, comparison, reasons, kept),
        _told(case, draft, comparison, reasons, kept),
    )
    return NOT_KEPT if reasons else 0


def _case(args: argparse.Namespace, engine: str | None, option: str) -> _Case:
    package = open_package(args.path)
    variant = _chosen(package, args.variant, engine)
    rule = _rule(package, args.keep_if)
    path: Path | None = getattr(args, "data", None)
    data = None if path is None else read(path, package, option)
    judged_on: Dataset | Requests
    if args.evaluation is not None:
        judged_on = read(args.evaluation, package, "--evaluation")
    elif data is not None:
        data, judged_on = data.split()
    else:
        judged_on = _without_data(package, variant)
    return _Case(Source(package, variant, data, _say), judged_on, rule)


def _without_data(package: Package, variant: Variant) -> Requests:
    held = carried(package)
    return Requests(held, "agreement") if held else made_up_for(package, variant)


def _chosen(package: Package, wanted: str | None, engine: str | None) -> Variant:
    suited = [one for one in package.manifest.variants if engine in (None, one.engine)]
    if wanted is not None:
        suited = [one for one in suited if one.name == wanted]
    able = [one for one in suited if lack(one) is None]
    if able:
        return able[0]
    names = ", ".join(f"{one.name} ({one.engine})" for one in package.manifest.variants)
    which = f"of engine {engine} " if engine else ""
    called = f"called {wanted} " if wanted else ""
    reasons = "; ".join(f"{one.name} {lack(one)}" for one in suited)
    raise ConfigError(
        f"{package.path}: has no variant {which}{called}that can run here; it has {names}"
        + (f": {reasons}" if reasons else "")
    )


def _rule(package: Package, changes: dict[str, float]) -> KeepIf:
    try:
        return msgspec.convert({**msgspec.to_builtins(package.manifest.keep_if), **changes}, KeepIf)
    except msgspec.ValidationError as error:
        known = ", ".join(KeepIf.__struct_fields__)
        raise ConfigError(f"--keep-if: {error}; its keys are {known}") from error


def _check_free(args: argparse.Namespace, package: Package, called: str) -> None:
    """What is going to be written must have a name, and one that is free, before any long work."""
    check_name("--as", called)
    target = _new_package(args, package)
    try:
        output_folder(str(target or package.path))
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error)) from error
    if target is not None:
        check_name("--name", args.name)
        check_name("--version", args.version)
        if target.exists():
            raise ConfigError(f"{target}: is there already; give another --name or --version")
    elif any(called == one.name for one in package.manifest.variants):
        raise ConfigError(
            f"{package.path}: has a variant {called} already; give another name: --as"
        )


def _new_package(args: argparse.Namespace, package: Package) -> Path | None:
    """Where a package of its own will stand; None where the variant joins its source."""
    name: str | None = getattr(args, "name", None)
    if name is None:
        return None
    store: Path = args.output or package.path.absolute().parents[1]
    version: str = args.version
    return store / name / version


def _compared(case: _Case, draft: Draft, after: tuple[Package, Variant]) -> Comparison:
    source = case.source
    try:
        found = compared((source.package, source.variant), after, case.judged_on)
    except BadRequest as error:
        raise PackageError(f"{source.where}: {error.message}") from error
    deviation = max(found.deviation, _deviation_on_samples(source, after))
    made = source.variant.made
    lost = made.right_share_before - made.right_share if made else 0.0
    limit = source.package.manifest.tolerance if draft.exact else None
    return Comparison(found.before, found.after, deviation, max(0.0, lost), limit)


def _deviation_on_samples(source: Source, after: tuple[Package, Variant]) -> float:
    """On the warm-up samples, which `verify` compares the variants by."""
    with ThreadPoolExecutor(1) as executor:
        some, others = (
            [
                [tensor.data for tensor in part.outputs]
                for part in verify.answers_to_samples(package, variant, executor)
            ]
            for package, variant in ((source.package, source.variant), after)
        )
    return measured_deviation(some, others)


def _keep(
    args: argparse.Namespace, case: _Case, draft: Draft, variant: Variant, found: Comparison
) -> Package:
    package, source = case.source.package, case.source.variant
    target = _new_package(args, package)
    origin = source.name if target is None else f"{package.name}/{package.version} {source.name}"
    made = Made(
        source=origin,
        by=draft.by,
        right_share=found.after.right_share,
        right_share_before=min(1.0, found.before.right_share + found.lost_before),
        deviation=found.deviation + (source.made.deviation if source.made else 0.0),
        items_count=case.judged_on.items_count,
        evaluation=case.judged_on.evaluation,
    )
    described = msgspec.structs.replace(variant, made=made)
    if target is None:
        return add_variant(package, described, draft.data)
    manifest = msgspec.structs.replace(
        package.manifest, name=args.name, version=args.version, variants=(described,)
    )
    files = {**package.kept_files(), variant.file: draft.data}
    return write_package(target.parents[1], manifest, files)


def _result(
    draft: Draft,
    case: _Case,
    found: Comparison,
    reasons: list[str],
    kept: Package | None,
) -> dict[str, Any]:
    return {
        "schema": "isochrone.variant/1",
        "ok": kept is not None,
        "made": draft.by,
        "package": str((kept or case.source.package).path),
        "before": _side(found.before),
        "after": _side(found.after),
        "compression": found.compression,
        "speed_up": found.speed_up,
        "accuracy_loss": found.accuracy_loss,
        "deviation": found.deviation,
        "evaluation": case.judged_on.evaluation,
        "items": case.judged_on.items_count,
        "rule": msgspec.to_builtins(case.rule),
        "reasons": reasons,
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "variant": side.name,
        "bytes": side.bytes,
        "latency_s": side.latency_s,
        "right_share": side.right_share,
    }


def _told(
    case: _Case, draft: Draft, found: Comparison, reasons: list[str], kept: Package | None
) -> Iterator[str]:
    count, kind = case.judged_on.items_count, case.judged_on.evaluation
    yield from told(found, "accuracy" if kind == "labels" else "agreement")
    yield f"judged on {count} {'items' if kind != 'made-up inputs' else 'made-up inputs'}"
    yield from draft.notes
    if kept is None:
        yield f"not kept, because {'; '.join(reasons)}"
    else:
        yield f"kept: variant {found.after.name} of {kept.path}"
        if (kept.path / SIGNATURE).exists():
            yield (
                "its signature holds no longer, and agents with trusted keys will refuse it: sign"
                f" it again: isochrone package sign {shlex.quote(str(kept.path))} --key FILE"
            )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
