"""What talks over sockets is tested on both event loops."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories(config, item):
    """The loops of a test, by name."""
    del config
    if "endpoint" in getattr(item, "fixturenames", ()):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
