from __future__ import annotations

import numpy as np

from modelwright.harness.run.inputs import take_reference_row


def test_a_packed_scalar_is_fed_as_a_scalar() -> None:
    arrays = {"input:rate": np.array([8000, 16000]), "input:x": np.zeros((2, 1, 3)), "output:y": np.ones((2, 1))}
    row = take_reference_row(arrays, 1)
    assert row.feeds["rate"].shape == ()
    assert row.feeds["rate"] == 16000
    assert row.feeds["x"].shape == (1, 3)
    assert row.expected["y"].tolist() == [1]
