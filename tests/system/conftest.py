"""A town for each test, or one for all the tests of a module that do it no harm."""

from collections.abc import Iterator

import pytest

from tests.system.town import Town


@pytest.fixture
def town(tmp_path, store) -> Iterator[Town]:
    made = Town(tmp_path, store)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def quiet_town(tmp_path_factory, store) -> Iterator[Town]:
    """A town whose tests do it no harm: one router, one agent that is in."""
    made = Town(tmp_path_factory.mktemp("town"), store)
    try:
        made.agent("edge", queue=64)
        yield made
    finally:
        made.end()
