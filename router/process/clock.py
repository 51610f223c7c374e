"""Where time comes from. Only shells read it; the core is given instants."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""A monotonic instant in seconds; differences mean something, values do not."""

monotonic: Clock = time.monotonic

wall: Clock = time.time  # noqa: TID251  # the one place: instants that people or later processes read
