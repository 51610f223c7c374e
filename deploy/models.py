"""`isochrone models`: what an agent holds, and which versions it pulls, loads and serves."""

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from isochrone.deploy.call import Reply, call, url
from isochrone.deploy.packages.package_name import check_name
from isochrone.deploy.result import add_json_argument, columns, size, tell
from isochrone.router.errors import ConfigError

HELP = "list, pull, load, unload or roll back an agent's models"
DEFAULT_AGENT = "http://127.0.0.1:8091"
TOKEN_VARIABLE = "ISOCHRONE_TOKEN_FILE"
_LOAD_TIMEOUT_S = 600.0
_REMEDY = "--agent takes its admin listener's address; isochrone agent --config FILE starts one"
_VERBS = {
    "load": "have a model warm; with --version, make that version the one that serves",
    "unload": "give a model's memory back; it stays on disk",
    "pull": "bring a package from the agent's source to its disk",
    "rollback": "have the version serve that did before",
}


class _ModelListed(msgspec.Struct):
    name: str
    version: str
    state: str
    active: bool
    previous: bool
    bytes: int
    load_s: float | None
    digest: str


class _PullListed(msgspec.Struct):
    name: str
    version: str
    bytes_done: int
    bytes_total: int
    interrupted: str


class _Listing(msgspec.Struct):
    models: list[_ModelListed]
    pulls: list[_PullListed]


class _VersionTold(msgspec.Struct):
    """What a load and a rollback answer."""

    version: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which agent."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_agent(actions.add_parser("list", help="show every version that is there"))
    for verb, text in _VERBS.items():
        action = actions.add_parser(verb, help=text)
        action.add_argument("model", help="its name")
        if verb != "rollback":
            action.add_argument("--version", required=verb == "pull", help="its version")
        if verb == "pull":
            action.add_argument(
                "--digest",
                type=digest,
                help="sha256 of its model.yaml; may be left out where it is signed",
            )
        _add_agent(action)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where the agent refuses.

    Raises:
        RefusedError, Unavailable: the agent says no, or nothing.
        ConfigError: the token cannot be read.
    """
    for option in ("model", "version"):
        if (name := getattr(args, option, None)) is not None:
            check_name("MODEL" if option == "model" else "--version", name)
    agent = _Agent(args.agent, _token(args.token_file))
    if args.action == "list":
        listing, told = agent.listing()
        tell(args, told, _listed(listing))
        return 0
    result = _pulled(agent, args) if args.action == "pull" else _controlled(agent, args)
    tell(args, {"schema": "isochrone.model/1", "ok": True, **result}, [_done(args, result)])
    return 0


def digest(text: str) -> str:
    """The digest of a package, as the command line takes it.

    Raises:
        ArgumentTypeError: it is none.
    """
    bare = text.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", bare):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no digest: that is 64 hexadecimal digits, the sha256 of the package's"
            " model.yaml, which isochrone package inspect prints"
        )
    return bare


class _Agent:
    """The administration of one agent."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"

    def listing(self) -> tuple[_Listing, Any]:
        """Every version and pull; the same as plain data."""
        reply = call(self._url + "/isochrone/models", headers=self._headers, remedy=_REMEDY)
        return reply.json(_Listing)

    def order(self, path: str, wishes: Mapping[str, Any]) -> Reply:
        body = json.dumps(wishes).encode()
        return call(
            self._url + path, body, self._headers, timeout_s=_LOAD_TIMEOUT_S, remedy=_REMEDY
        )


def _controlled(agent: _Agent, args: argparse.Namespace) -> dict[str, Any]:
    model = quote(args.model, safe="")
    if args.action == "rollback":
        return dict(agent.order(f"/isochrone/models/{model}/rollback", {}).json(_VersionTold)[1])
    if args.action == "unload":  # answered by {}, as from any server: it must be an agent
        agent.listing()
    wishes = {"parameters": {"version": args.version}} if args.version else {}
    reply = agent.order(f"/v2/repository/models/{model}/{args.action}", wishes)
    told = {"name": args.model, "version": args.version, "done": reply.status == HTTPStatus.OK}
    kind = dict if args.action == "unload" else _VersionTold
    return {**told, **reply.json(kind)[1]}


def _pulled(agent: _Agent, args: argparse.Namespace) -> dict[str, Any]:
    """Asks until the package is there; the agent answers each time how far it is."""
    wishes = {"version": args.version}
    if args.digest:
        wishes["digest"] = args.digest
    path = f"/isochrone/models/{quote(args.model, safe='')}/pull"
    while True:
        reply = agent.order(path, wishes)
        pull, told = reply.json(_PullListed)
        if reply.status == HTTPStatus.OK:
            return dict(told)
        print(_progress(pull), file=sys.stderr, flush=True)


def _done(args: argparse.Namespace, result: Mapping[str, Any]) -> str:
    model, version = args.model, result["version"]
    if not result.get("done", True):
        return f"{model} leaves once its running calls have ended; see {_command(args, 'list')}"
    return {
        "load": f"{model} {version} is warm",
        "unload": f"{model} {version or ''} is unloaded".replace("  ", " "),
        "pull": f"{model} {version} is there; serve it:"
        f" {_command(args, 'load', model, '--version', version)}",
        "rollback": f"{model} {version} serves again",
    }[args.action]


def _command(args: argparse.Namespace, *words: str) -> str:
    """A command for the same agent with the same token, to be pasted into a shell."""
    more = [] if args.agent == DEFAULT_AGENT else ["--agent", args.agent]
    if args.token_file is not None:
        more += ["--token-file", str(args.token_file)]
    return shlex.join(["isochrone", "models", *words, *more])


def _progress(pull: _PullListed) -> str:
    done = f"{size(pull.bytes_done)} of {size(pull.bytes_total)}"
    return f"{done}; to be tried again: {pull.interrupted}" if pull.interrupted else done


def _listed(listing: _Listing) -> Iterator[str]:
    heads = ["MODEL", "VERSION", "STATE", "SERVES", "SIZE", "LOAD", "DIGEST"]
    yield from columns([heads, *map(_row, listing.models)])
    for pull in listing.pulls:
        yield f"pulling {pull.name} {pull.version}: {_progress(pull)}"


def _row(model: _ModelListed) -> list[str]:
    role = "no"
    if model.active:
        role = "yes" if model.state == "warm" else "once warm"
    elif model.previous:
        role = "before"
    return [
        model.name,
        model.version,
        model.state,
        role,
        size(model.bytes),
        "-" if model.load_s is None else f"{model.load_s:.2f} s",
        model.digest[:12],
    ]


def _add_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--agent",
        type=url,
        metavar="URL",
        default=DEFAULT_AGENT,
        help="the agent's admin listener (%(default)s)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the administrators' token (else the file that {TOKEN_VARIABLE} names)",
    )
    add_json_argument(parser)


def _token(path: Path | None) -> str | None:
    # A command line's own default: the variable names a file, the token itself is in neither.
    named = path or os.environ.get(TOKEN_VARIABLE)  # noqa: TID251
    if not named:
        return None
    try:
        return Path(named).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token in {named} cannot be read: {error}") from error
