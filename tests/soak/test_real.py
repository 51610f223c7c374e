"""A minute of models that others trained, against bare onnxruntime, in a group of 450 MB."""

from contextlib import ExitStack

import pytest

from tests.soak import real
from tests.soak.group import NoGroup, small_group

pytestmark = pytest.mark.skipif(bool(real.missing()), reason="make real-models brings their files")


async def test_a_minute_of_real_models_with_mixed_tenants_and_sizes(tmp_path):
    with ExitStack() as stack:
        try:
            group = stack.enter_context(small_group(real.GROUP_BYTES))
        except NoGroup:
            group = None
        result = await real.soak(tmp_path, 60.0, 1, group)
    assert result["ok"], result
