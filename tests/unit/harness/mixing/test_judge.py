"""What a network keeps of FP32's answers, where they are no floats and no classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleSet
from modelwright.harness.mixing.judge import Judge


def judge(answers: list[npt.NDArray[np.generic]]) -> Judge:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 1))
    samples = SampleSet(
        {"x": np.zeros((len(answers), 1), np.float32)},
        None,
        np.arange(len(answers)),
        Signature(inputs=(spec,), outputs=(TensorSpec(name="y", dtype="int64", shape=("batch", 2)),)),
    )
    return Judge(samples, [{"y": answer} for answer in answers], {}, Path())


def test_whole_numbers_are_counted_one_by_one() -> None:
    quality = judge([np.array([[1, 2]]), np.array([[3, 4]])]).judge_fp32().quality
    assert (quality.measure, quality.value, quality.samples) == ("agreement", 1.0, 2)


def test_answers_that_cannot_be_compared_keep_no_limit() -> None:
    with pytest.raises(BadInputError, match="outputs y keep of FP32's answers cannot be told") as refused:
        judge([np.array([["cat", "dog"]])]).judge_fp32()
    assert refused.value.hint is not None
