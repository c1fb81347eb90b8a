from __future__ import annotations

import numpy as np
import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.run.inputs import require_memory, take_reference_row


@pytest.mark.parametrize("batch", [10**9, 2**31 - 1])
@pytest.mark.parametrize("shape", [(1, 3, 12, 12), (1, 0)])
def test_a_batch_beyond_the_memory_is_refused_before_it_is_made(batch: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(MeasurementInvalidError, match=f"--batch {batch}: the inputs of one inference would take"):
        require_memory({"x": np.zeros(shape, np.float32)}, batch)


def test_a_batch_that_fits_is_none_of_its_business() -> None:
    require_memory({"x": np.zeros((1, 3, 224, 224), np.float32)}, 256)


def test_a_packed_scalar_is_fed_as_a_scalar() -> None:
    arrays = {"input:rate": np.array([8000, 16000]), "input:x": np.zeros((2, 1, 3)), "output:y": np.ones((2, 1))}
    row = take_reference_row(arrays, 1)
    assert row.feeds["rate"].shape == ()
    assert row.feeds["rate"] == 16000
    assert row.feeds["x"].shape == (1, 3)
    assert row.expected["y"].tolist() == [1]
