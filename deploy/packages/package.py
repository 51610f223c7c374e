"""`isochrone package`: make a model package from your own ONNX file, look at it, check it."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from isochrone.deploy.packages import signing
from isochrone.deploy.packages.onnx_package import Wanted, build
from isochrone.deploy.packages.package_name import check_name
from isochrone.deploy.result import add_json_argument, output_folder, size, tell
from isochrone.edge_agent.runtime.engines.table import lack
from isochrone.edge_agent.runtime.loading import verify
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    Package,
    PackageError,
    open_package,
    packages_in,
)
from isochrone.router.errors import ConfigError
from isochrone.router.wire.tensor import TensorSpec

_SHOWN = 72
_MOST_VERSIONS = 3
HELP = "build, inspect or verify a model package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`build`, `inspect`, `verify`, and what signs."""
    parser.epilog = (
        "export, quantize, prune and distill make variants: isochrone package WORD --help"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = actions.add_parser("build", help="make a package from an ONNX file")
    made.add_argument("--onnx", type=Path, required=True, help="the model")
    made.add_argument("--name", required=True, help="the name that requests will use")
    made.add_argument("--version", default="1", help="(%(default)s)")
    made.add_argument(
        "--sample",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a real request, kept for warm-ups: .npz of arrays by input, .json as clients send it,"
        " or a picture; may be repeated",
    )
    made.add_argument("--labels", metavar="FILE|a,b,c", help="classes: a file of lines, or a list")
    made.add_argument("--output", type=output_folder, default=Path("models"), help="(%(default)s)")
    for name, text in (("inspect", "say what a package holds"), ("verify", "check it by running")):
        action = actions.add_parser(name, help=text)
        action.add_argument("path", type=Path, help="a package, or a directory of packages")
        add_json_argument(action)
        if name == "verify":
            signing.add_trust_argument(action)
    signing.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where a package has a problem."""
    if args.action == "build":
        return _build(args)
    if args.action in signing.ACTIONS:
        return signing.run(args)
    packages, problems = _found(args.path)
    if args.action == "verify":
        problems += [text for package in packages for text in verify.problems(package)]
        problems += signing.problems(packages, args.trusted_key)
    result = {
        "schema": "isochrone.package/1",
        "ok": not problems,
        "packages": [_record(package) for package in packages],
        "problems": problems,
    }
    tell(args, result, _told(packages, problems, verified=args.action == "verify"))
    return 1 if problems else 0


def _build(args: argparse.Namespace) -> int:
    check_name("--name", args.name)
    check_name("--version", args.version)
    wanted = Wanted(args.name, args.version, _labels(args.labels), tuple(args.sample))
    notes: list[str] = []
    package = build(args.onnx, args.output, wanted, notes.append)
    told = (f"note: {text}" for text in notes)
    for line in (*_outline(package), *told, *_next_steps(package, args.output)):
        print(line)
    return 0


def _labels(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    if "," in text:
        return tuple(label.strip() for label in text.split(","))
    try:
        return tuple(Path(text).read_text("utf-8").splitlines())
    except FileNotFoundError as error:
        if "/" in text or Path(text).suffix:
            raise ConfigError(
                f"--labels {text}: there is no such file; correct the path, or give the classes"
                " with commas between them"
            ) from error
        return (text.strip(),)  # the only class of a list of one
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--labels {text}: cannot be read as UTF-8 text: {error}") from error


def _found(path: Path) -> tuple[list[Package], list[str]]:
    if not (path / MANIFEST).exists() and (path.is_dir() or not path.exists()):
        packages, errors = packages_in(path)
        versions = [str(one.parent) for one in sorted(path.glob(f"*/{MANIFEST}"))]
        hint = f"; give {' or '.join(versions[-_MOST_VERSIONS:])}" if versions else ""
        if not packages and not any(path.glob(f"*/*/{MANIFEST}")):
            return [], [f"{path}: holds no package (NAME/VERSION/){hint}"]
        return packages, [error.message for error in errors]
    try:
        return [open_package(path)], []
    except PackageError as error:
        return [], [error.message]


def _record(package: Package) -> dict[str, Any]:
    manifest = package.manifest
    variants = [
        {**msgspec.to_builtins(variant), "lacks": lack(variant)} for variant in manifest.variants
    ]
    return {
        "path": str(package.path),
        "digest": package.digest,
        **msgspec.to_builtins(manifest),
        "variants": variants,
    }


def _told(packages: Sequence[Package], problems: Sequence[str], *, verified: bool) -> Iterator[str]:
    for package in packages:
        yield from _outline(package)
    if verified and packages and not problems:
        yield "verified: digests right, every variant that can run here loads and answers"
    for problem in problems:
        yield f"problem: {problem}"


def _outline(package: Package) -> Iterator[str]:
    manifest = package.manifest
    yield f"{manifest.name} {manifest.version} in {package.path}"
    yield f"  digest {package.digest}"
    for word, specs in (("takes", manifest.takes()), ("gives", manifest.gives())):
        yield from (f"  {word} {_spec(spec)}" for spec in specs)
    if manifest.labels:
        yield f"  labels {', '.join(manifest.labels)}"
    for sample in manifest.warm_up:
        sizes = ", ".join(f"{one.name} {list(one.shape)}" for one in sample.inputs)
        yield f"  sample {sizes}: {'given' if sample.real else 'made up'}"
    for key, text in manifest.metadata.items():
        yield f"  metadata {key}: {_shortened(text)}"
    for variant in manifest.variants:
        yield (
            f"  variant {variant.name}: {variant.file}, {size(variant.bytes)},"
            f" {lack(variant) or 'can run here'}{_origin(variant)}"
        )
        yield f"    {_batch(variant)}"


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}… ({len(text)} characters)"


def _batch(variant: Variant) -> str:
    measured = variant.batch_measured
    if variant.batch is None or measured is None:
        return f"batch {variant.batch or 'not proven yet: an agent does it when it loads it'}"
    if variant.batch == "rows":
        return f"batch rows: calls may share runs of up to {measured.rows} ({measured.on})"
    return f"batch none: calls share no run ({measured.reason})"


def _origin(variant: Variant) -> str:
    made = variant.made
    if made is None:
        return ""
    right = (
        f"{made.right_share:.4f} of {made.items_count} right, before {made.right_share_before:.4f}"
    )
    return f"; made from {made.source} by {made.by} ({right})"


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.datatype} {list(spec.shape)}"


def _yaml(value: object) -> str:
    """On one line."""
    text: str = yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize)
    return text.strip()[1:-1]


def _next_steps(package: Package, store: Path) -> Iterator[str]:
    settings = {
        "name": "here",
        "region": "local",
        "packages": str(store.absolute()),
        "keep_warm": [package.name],
    }
    lines = " ".join(shlex.quote(f"{key}: {_yaml(value)}") for key, value in settings.items())
    yield "serve it:"
    yield rf"  printf '%s\n' {lines} > agent.yaml"
    yield "  isochrone agent --config agent.yaml"
    yield f"  curl http://127.0.0.1:8090/v2/models/{package.name}"
