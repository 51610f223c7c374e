"""What is freed only once Python looks for cycles: until then it is in memory, inputs and all."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Counts, by type, what of ours the block leaves behind and only such a search would free."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(one) for one in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    found.update(kind.__qualname__ for kind in kinds if kind.__module__.startswith("isochrone."))
