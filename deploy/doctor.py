"""`isochrone doctor`: everything that an edge agent needs of its machine, looked at one by one."""

import argparse
import os
import stat
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec

from isochrone.deploy.call import RefusedError, Reply, call
from isochrone.deploy.result import add_json_argument, size, tell
from isochrone.edge_agent.artefacts.parts import trust_of
from isochrone.edge_agent.config import AgentConfig, ModelConfig, check
from isochrone.edge_agent.guard import guard_of
from isochrone.edge_agent.machine import Machine
from isochrone.edge_agent.runtime.engines.table import lack
from isochrone.edge_agent.runtime.package.cores import usable_cores
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.package import Package, PackageError, packages_in
from isochrone.router.errors import BadRequest, ConfigError, Unavailable
from isochrone.router.http.sockets import bind, listed
from isochrone.router.process.clock import wall
from isochrone.router.wire.report import EndpointReport, SeenAgent, decode_endpoint_report
from isochrone.router.wire.url import parse_url

HELP = "check an edge agent's machine and say what to do"
RUNTIME_BYTES = 100 << 20
"""What an agent with one small model takes."""
_LOADING_FACTOR = 2
"""A file is in memory twice for a moment while its model is loaded."""
_LOW_DISK_BYTES = 256 << 20
_TOO_OPEN = stat.S_IWGRP | stat.S_IRWXO
"""Of a secret's file: its group may be the agent's and may read it, nobody else may do anything."""
_SKEW_S = 30.0
"""What signed messages tolerate."""
DATE_GRAIN_S = 1.0
"""What the Date header of HTTP tells apart."""
_PATIENCE_S = 3.0
_FOREIGN = "is this URL a router's?"

State = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at, and what to do where it is not well."""

    what: str
    state: State
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.state:<4}  {self.what:<8}  {self.found}{remedy}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose machine."""
    parser.add_argument("--config", type=Path, required=True, help="the agent's agent.yaml")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for each finding; 1 where one of them is `fail`."""
    findings = list(examined(args.config))
    ok = all(finding.state != "fail" for finding in findings)
    result = {"schema": "isochrone.doctor/1", "ok": ok, "checks": findings}
    tell(args, result, map(str, findings))
    return int(not ok)


def examined(path: Path) -> Iterator[Finding]:
    """Everything that is found; the first is the configuration, without which there is no more."""
    try:
        config = check(path)
    except ConfigError as error:
        yield Finding("config", "fail", error.message)
        return
    yield Finding("config", "ok", f"{path}: agent {config.name} in {config.region}")
    try:
        trust = trust_of(config.artefacts)
    except ConfigError as error:
        yield Finding("models", "fail", error.message)
        return
    packages, broken = packages_in(config.packages, trust) if config.packages.is_dir() else ([], [])
    yield from _models(config, packages, broken)
    yield from _cores(config)
    yield from _disk(config)
    yield from _token(config.admin.token_file)
    running = _report_of(listed(config.listen)[0])
    yield from _ports(config, running)
    yield _memory(config, packages) if running is None else _pressure(running)
    for router in config.routers:
        yield from _router(router.url, config, running)


def _models(
    config: AgentConfig, packages: Iterable[Package], broken: Iterable[PackageError]
) -> Iterator[Finding]:
    """Every package, its digests, and its signature where keys are trusted; what is kept warm."""
    if not config.packages.is_dir():
        remedy = "make it, and put packages there (isochrone package build)"
        yield Finding("models", "fail", f"{config.packages} is no directory", remedy)
        return
    for error in broken:
        yield Finding("models", "fail", error.message)
    for package in packages:
        yield _package(package)
    for name, text in unknown_variants(config, packages).items():
        remedy = "name one of these, or none"
        yield Finding("models", "fail", f"models.{name}.variant {text}", remedy)
    for name in sorted(set(config.keep_warm) - {package.name for package in packages}):
        remedy = f"put it into {config.packages}, or take it out of keep_warm"
        yield Finding("models", "fail", f"keep_warm names {name}, which is not here", remedy)


def _package(package: Package) -> Finding:
    title = f"{package.name} {package.version}"
    lacking = [lack(variant) for variant in package.manifest.variants]
    try:
        for variant in package.manifest.variants:
            package.read(variant)
    except PackageError as error:
        return Finding("models", "fail", error.message)
    if all(lacking):
        return Finding("models", "fail", f"{title} cannot run here: {lacking[0]}")
    return Finding("models", "ok", f"{title}: {len(lacking)} variant(s), digests are right")


def unknown_variants(config: AgentConfig, packages: Iterable[Package]) -> dict[str, str]:
    """By model, what is wrong with a `variant` that the configuration names."""
    wrong = {}
    for package in packages:
        wanted = config.models.get(package.name, ModelConfig()).variant
        names = [variant.name for variant in package.manifest.variants]
        if wanted is not None and wanted not in names:
            has = f"{package.name} {package.version} has {', '.join(names)}"
            wrong[package.name] = f"names {wanted}, and {has}"
    return wrong


def _loadable(package: Package, config: AgentConfig) -> list[Variant]:
    """The variants that an agent would choose from; all where the configuration names no other."""
    wanted = config.models.get(package.name, ModelConfig()).variant
    variants = list(package.manifest.variants)
    return [one for one in variants if one.name == wanted] or variants


def _memory(config: AgentConfig, packages: Iterable[Package]) -> Finding:
    """Is there room for what is kept warm, and for the largest file once more while it loads?"""
    warm = [
        max(v.bytes for v in _loadable(p, config)) for p in packages if p.name in config.keep_warm
    ]
    needed = RUNTIME_BYTES + sum(warm) + (_LOADING_FACTOR - 1) * max(warm, default=0)
    left = Machine(config.packages).read().memory_left_bytes
    budget = config.memory.budget_bytes
    if budget is not None and sum(warm) > budget and not config.memory.overcommit:
        found = f"memory.budget_bytes is {size(budget)}, what is kept warm has {size(sum(warm))}"
        return Finding("memory", "fail", found, "raise it, or keep fewer models warm")
    if left is None:
        return Finding("memory", "warn", "this system does not say how much is left")
    found = f"{size(left)} left, about {size(needed)} needed for what is kept warm"
    if left >= needed:
        return Finding("memory", "ok", found)
    return Finding("memory", "fail", found, "keep fewer models warm, or smaller variants of them")


def _cores(config: AgentConfig) -> Iterator[Finding]:
    """Are there as many as the configuration counts on?"""
    cores = usable_cores()
    used = {"slots": config.slots_on(cores), "threads": config.threads_on(cores)}
    said = {"slots": config.slots, "threads": config.threads}
    for key, count in said.items():
        if count > used[key]:
            found = f"{key}: {count} on {cores:g} cores; {used[key]} is used"
            yield Finding("cores", "warn", found, f"say {key}: {used[key]}")
    if used == said:
        found = f"{cores:g}, for {config.slots} runs at once of {config.threads} thread(s)"
        yield Finding("cores", "ok", found)


def _disk(config: AgentConfig) -> Iterator[Finding]:
    """The folders that are written to, and the room there."""
    files = [path for path in (config.access_log, config.state_file) if path is not None]
    for folder in dict.fromkeys([config.packages, *(path.parent for path in files)]):
        if not folder.is_dir():
            if folder != config.packages:
                yield Finding("disk", "fail", f"{folder} is no directory", "make it")
            continue
        is_written = folder != config.packages or config.artefacts.source is not None
        yield _room(folder, is_written=is_written)
    if config.state_file is None:
        found = "no state_file: what happens without a network is forgotten at a restart"
        yield Finding("disk", "warn", found, "name a file")


def _room(folder: Path, *, is_written: bool) -> Finding:
    free = Machine(folder).read().disk_free_bytes or 0
    if is_written and not os.access(folder, os.W_OK):
        remedy = "let the agent's user write there, or name another place"
        return Finding("disk", "fail", f"{folder} cannot be written", remedy)
    state: State = "ok" if free >= _LOW_DISK_BYTES else "warn"
    remedy = "" if state == "ok" else "make room: a full disk costs logs and updates"
    return Finding("disk", state, f"{folder}: {size(free)} free", remedy)


def _token(file: Path | None) -> Iterator[Finding]:
    """The administrators' token: can it be used, and who else can read it?"""
    if file is None:
        return
    try:
        guard_of(file)
        mode = stat.S_IMODE(file.stat().st_mode)
    except (ConfigError, OSError) as error:
        yield Finding("token", "fail", str(error))
        return
    found = f"{file} has mode {mode:o}"
    if mode & _TOO_OPEN:
        remedy = f"chmod 600 {file}, and make another token: others could have had this one"
        yield Finding("token", "fail", found, remedy)
    else:
        yield Finding("token", "ok", found)


def _ports(config: AgentConfig, running: EndpointReport | None) -> Iterator[Finding]:
    if running is not None and running.name == config.name:
        ready = "ready" if running.ready else "not ready yet"
        yield Finding(
            "ports", "ok", f"the agent runs on {', '.join(listed(config.listen))} and is {ready}"
        )
        return
    for address in (*listed(config.listen), config.admin.listen):
        try:
            bind(address).close()
        except ConfigError as error:
            yield Finding("ports", "fail", error.message)
        else:
            yield Finding("ports", "ok", f"{address} is free; the agent does not run")


def _pressure(running: EndpointReport) -> Finding:
    degraded = running.pressure.degraded
    if not degraded:
        return Finding("agent", "ok", "it runs short of nothing")
    return Finding("agent", "warn", "; ".join(degraded), "give the machine more, or the agent less")


def _router(url: str, config: AgentConfig, running: EndpointReport | None) -> Iterator[Finding]:
    """Is it there, is its clock ours, and how does it see this agent?"""
    answer = _asked(f"{url}/isochrone/agents/{config.name}")
    if answer is None:
        remedy = "check its url and the network; clients of this machine are served all the same"
        yield Finding("router", "fail", f"{url} gives no answer", remedy)
        return
    yield _clock(url, answer)
    yield _view(url, answer, config, running)


def _clock(url: str, answer: Reply) -> Finding:
    told = dict(answer.headers).get(b"date", b"").decode("latin-1")
    try:
        ahead_s = wall() - parsedate_to_datetime(told).timestamp()
    except (ValueError, OverflowError):
        return Finding("clock", "warn", f"{url} does not say what time it is")
    # The date was written before it arrived, and tells no parts of a second.
    uncertain_s = DATE_GRAIN_S + answer.seconds
    if -DATE_GRAIN_S <= ahead_s <= uncertain_s:
        return Finding("clock", "ok", f"as {url} has it, within {uncertain_s:.1f} s")
    found = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {url}"
    if abs(ahead_s) <= _SKEW_S:
        return Finding("clock", "ok", found)
    return Finding("clock", "warn", found, "set the clock (timedatectl set-ntp true)")


def _view(url: str, answer: Reply, config: AgentConfig, running: EndpointReport | None) -> Finding:
    if answer.status == HTTPStatus.OK:
        try:
            return _seen(url, answer.json(SeenAgent)[0])
        except RefusedError as error:
            return Finding("router", "fail", error.message, _FOREIGN)
    if answer.problem() is None:
        return Finding("router", "fail", answer.refusal(), _FOREIGN)
    match answer.status:
        case HTTPStatus.FORBIDDEN:
            remedy = "add this machine's network to enrolment.allowed_networks of the router"
            return Finding("router", "fail", f"{url} takes no agents from here", remedy)
        case HTTPStatus.NOT_FOUND if running is None:
            remedy = f"start it: isochrone agent --config FILE ({config.name} joins by itself)"
            return Finding("router", "warn", f"{url} does not know this agent", remedy)
        case HTTPStatus.NOT_FOUND:
            found = f"{url} does not know this agent, which runs"
            return Finding("router", "fail", found, "the agent's log says why it was refused")
    return Finding("router", "fail", f"{url}: {answer.refusal()}", _FOREIGN)


def _seen(url: str, seen: SeenAgent) -> Finding:
    if seen.out is None:
        return Finding("router", "ok", f"{url} sends requests to {seen.url}")
    found = f"{url} sends nothing to {seen.url}: {seen.out}"
    if _is_loopback(seen.url) and not _is_loopback(url):
        return Finding("router", "fail", found, "say `advertise`: it cannot reach loopback")
    return Finding("router", "fail", found, "check `advertise`, and the firewall between them")


def _is_loopback(url: str) -> bool:
    try:
        return ip_address(parse_url(url).host).is_loopback
    except (BadRequest, ValueError):
        return False


def _report_of(address: str) -> EndpointReport | None:
    """What the agent that listens there says of itself; None where there is none."""
    here = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
    answer = _asked(f"http://{here}/isochrone/report")
    return None if answer is None else decode_endpoint_report(answer.body)


def _asked(url: str) -> Reply | None:
    try:
        return call(url, timeout_s=_PATIENCE_S, remedy="")
    except Unavailable:
        return None
