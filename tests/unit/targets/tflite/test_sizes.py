from __future__ import annotations

import numpy as np

from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.tflite.sizes import Resizer, find_free_sizes

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("n", 3, "h", "w")),
        TensorSpec(name="mask", dtype="float32", shape=("n", "h")),
        TensorSpec(name="rate", dtype="float32", shape=()),
    ),
    outputs=(),
)
SHAPES = {"x": (1, 3, 4, 6), "mask": (1, 4), "rate": ()}


def test_the_batch_is_none_of_the_sizes_that_the_samples_settle() -> None:
    assert find_free_sizes(SIGNATURE, SHAPES) == {"h": 4, "w": 6}


def test_feeds_are_brought_to_other_sizes_by_name() -> None:
    resizer = Resizer(SIGNATURE, {"h": 4, "w": 6})
    assert resizer.shapes(SHAPES, resizer.doubled) == {"x": [1, 3, 8, 12], "mask": [1, 8], "rate": []}
    feeds = {"x": np.arange(72.0).reshape(1, 3, 4, 6), "mask": np.arange(4.0)[None], "rate": np.array(8.0)}
    larger = resizer.resize(feeds, resizer.odd)
    assert larger["x"].shape == (1, 3, 5, 7)
    assert larger["mask"].tolist() == [[0, 1, 2, 3, 0]]
    assert larger["rate"].shape == ()
    np.testing.assert_array_equal(larger["x"][:, :, :4, :6], feeds["x"])
    assert Resizer.describe(resizer.odd) == "h 5 w 7"
