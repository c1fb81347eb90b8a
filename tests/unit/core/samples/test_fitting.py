"""What a refusal says to do about samples, done as it says: the samples are then taken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.fitting import find_transpose
from modelwright.core.samples.sample_set import SampleRef, open_samples

EXPRESSION = re.compile(r"save (.+?)(?: for values|$)")


def open_arrays(path: Path, spec: TensorSpec, array: Any) -> Any:
    np.savez(path, **{spec.name: array})
    return open_samples(SampleRef(path=path), Signature(inputs=(spec,), outputs=()))


@pytest.mark.parametrize(
    ("wanted", "shape", "dtype", "words"),
    [
        (("batch", 3, 8, 6), (5, 8, 6, 3), "float32", "channels come last: save x.transpose(0, 3, 1, 2)"),
        (("batch", 8, 6, 3), (5, 3, 8, 6), "float32", "channels come first: save x.transpose(0, 2, 3, 1)"),
        (("batch", 3, "height", "width"), (5, 8, 6, 3), "float32", "channels come last"),
        ((1, 3, 8, 6), (5, 1, 8, 6, 3), "float32", "save x.transpose(0, 1, 4, 2, 3)"),
        (("batch", 4, 16), (5, 16, 4), "float32", "channels come last: save x.transpose(0, 2, 1)"),
        (("batch", 1, 8, 8), (5, 8, 8), "float32", "an axis of size 1 is missing: save x[:, None]"),
        (("batch", 8, 8, 1), (5, 8, 8), "float32", "save x[:, :, :, None]"),
        (
            ("batch", 3, 8, 6),
            (5, 3, 8, 6),
            "uint8",
            "images are scaled to what the model was trained on: save x.astype",
        ),
        (("batch", 3, 8, 6), (5, 8, 6, 3), "uint8", "save x.transpose(0, 3, 1, 2).astype('float32') / 255"),
        (("batch", 4), (5, 4), "int64", "convert it before saving: x.astype('float32')"),
    ],
)
def test_following_the_hint_makes_the_samples_fit(
    tmp_path: Path, wanted: tuple[Any, ...], shape: tuple[int, ...], dtype: str, words: str
) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=wanted)
    array = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    with pytest.raises(BadInputError) as caught:
        open_arrays(tmp_path / "s.npz", spec, array)
    hint = caught.value.hint or ""
    assert words in hint
    told = EXPRESSION.search(hint) or re.search(r"saving: (.+)", hint)
    assert told is not None
    mended = eval(told[1], {"x": array})
    samples = open_arrays(tmp_path / "s.npz", spec, mended)
    assert samples.count == 5
    if dtype == "uint8":
        assert next(samples.feeds())["x"].max() <= 1.0


def test_what_has_other_sizes_is_told_the_whole_shape(tmp_path: Path) -> None:
    spec = TensorSpec(name="input.1", dtype="float32", shape=("batch", 3, 8, 6))
    with pytest.raises(BadInputError) as caught:
        open_arrays(tmp_path / "s.npz", spec, np.zeros((5, 9, 9, 9), np.float32))
    assert caught.value.hint == "save it as [samples, 3, 8, 6]"
    with pytest.raises(BadInputError) as caught:
        open_arrays(tmp_path / "s.npz", spec, np.zeros((5, 8, 6, 3), np.float32))
    assert "save array.transpose(0, 3, 1, 2)" in (caught.value.hint or ""), "input.1 is no name of Python's"


def test_no_order_of_axes_is_told_where_the_samples_fit_already() -> None:
    assert find_transpose(("batch", 3, 3, 3), (5, 3, 3, 3)) is None
    assert find_transpose(("batch", 4), (5, 4)) is None
