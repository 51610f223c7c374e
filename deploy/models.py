"""`isochrone models`: what an agent holds, and which versions it pulls, loads and serves."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy.call import Reply, call
from deploy.result import add_json_argument, columns, tell
from router.errors import ConfigError

HELP = "list, pull, load, unload or roll back an agent's models"
TOKEN_VARIABLE = "ISOCHRONE_TOKEN_FILE"
_LOAD_TIMEOUT_S = 600.0
_VERBS = {
    "load": "have a model warm; with --version, make that version the one that serves",
    "unload": "give a model's memory back; it stays on disk",
    "pull": "bring a package from the agent's source to its disk",
    "rollback": "have the version serve that did before",
}


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
                "--digest", help="sha256 of its model.yaml; may be left out where it is signed"
            )
        _add_agent(action)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 where the agent refuses.

    Raises:
        RefusedError, Unavailable: the agent says no, or nothing.
        ConfigError: the token cannot be read.
    """
    agent = _Agent(args.agent, _token(args.token_file))
    if args.action == "list":
        result = agent.ask("/isochrone/models")
        tell(args, result, _listed(result))
        return 0
    result = _pulled(agent, args) if args.action == "pull" else _controlled(agent, args)
    tell(args, {"schema": "isochrone.model/1", "ok": True, **result}, [_done(args, result)])
    return 0


class _Agent:
    """The administration of one agent."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"

    def ask(self, path: str) -> Any:  # noqa: ANN401 - what the agent says
        return call(self._url + path, headers=self._headers).json()

    def order(self, path: str, wishes: Mapping[str, Any]) -> Reply:
        body = json.dumps(wishes).encode()
        return call(self._url + path, body, self._headers, timeout_s=_LOAD_TIMEOUT_S)


def _controlled(agent: _Agent, args: argparse.Namespace) -> dict[str, Any]:
    model = quote(args.model, safe="")
    if args.action == "rollback":
        return dict(agent.order(f"/isochrone/models/{model}/rollback", {}).json())
    wishes = {"parameters": {"version": args.version}} if args.version else {}
    reply = agent.order(f"/v2/repository/models/{model}/{args.action}", wishes)
    told = {"name": args.model, "version": args.version, "done": reply.status == HTTPStatus.OK}
    return {**told, **reply.json()}


def _pulled(agent: _Agent, args: argparse.Namespace) -> dict[str, Any]:
    """Asks until the package is there; the agent answers each time how far it is."""
    wishes = {"version": args.version}
    if args.digest:
        wishes["digest"] = args.digest.removeprefix("sha256:")
    path = f"/isochrone/models/{quote(args.model, safe='')}/pull"
    while (reply := agent.order(path, wishes)).status == HTTPStatus.ACCEPTED:
        print(_progress(json.loads(reply.body)), file=sys.stderr, flush=True)
    return dict(reply.json())


def _done(args: argparse.Namespace, result: Mapping[str, Any]) -> str:
    model, version = args.model, result["version"]
    if not result.get("done", True):
        return f"{model} leaves once its running calls have ended; see isochrone models list"
    return {
        "load": f"{model} {version} is warm",
        "unload": f"{model} {version or ''} is unloaded".replace("  ", " "),
        "pull": f"{model} {version} is there; serve it:"
        f" isochrone models load {model} --version {version}",
        "rollback": f"{model} {version} serves again",
    }[args.action]


def _progress(pull: Mapping[str, Any]) -> str:
    done = f"{pull['bytes_done']} of {pull['bytes_total']} bytes"
    why = pull["interrupted"]
    return f"{done}; to be tried again: {why}" if why else done


def _listed(result: Mapping[str, Any]) -> Iterator[str]:
    heads = ["MODEL", "VERSION", "STATE", "SERVES", "SIZE", "LOAD", "DIGEST"]
    yield from columns([heads, *map(_row, result["models"])])
    for pull in result["pulls"]:
        yield f"pulling {pull['name']} {pull['version']}: {_progress(pull)}"


def _row(model: Mapping[str, Any]) -> list[str]:
    role = "yes" if model["active"] else "before" if model["previous"] else "no"
    load_s = model["load_s"]
    return [
        model["name"],
        model["version"],
        model["state"],
        role,
        f"{model['bytes'] / 1e6:.1f} MB",
        "-" if load_s is None else f"{load_s:.2f} s",
        model["digest"][:12],
    ]


def _add_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--agent",
        metavar="URL",
        default="http://127.0.0.1:8091",
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
