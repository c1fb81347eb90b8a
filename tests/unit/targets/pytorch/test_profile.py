"""What torch's profiler tells as operators, with known answers."""

from __future__ import annotations

import pytest

from modelwright.targets.pytorch.profile import classify, read_runs


@pytest.mark.parametrize(
    ("name", "dtypes", "answer"),
    [
        ("conv2d", ("float", "float"), ("compute", "fp32")),
        ("linear", ("c10::BFloat16",), ("compute", "bf16")),
        ("addmm", ("c10::Half",), ("compute", "fp16")),
        ("scaled_dot_product_attention", ("float",), ("compute", "fp32")),
        ("relu", ("float",), ("other", "fp32")),
        ("embedding", ("float", "long int"), ("other", "fp32")),
        ("arange", ("Scalar", ""), ("other", None)),
        ("_to_copy", ("float",), ("conversion", None)),
        ("permute", ("float",), ("conversion", None)),
    ],
)
def test_what_an_operator_is(name: str, dtypes: tuple[str, ...], answer: tuple[str, str | None]) -> None:
    assert classify(name, dtypes) == answer


def test_operators_of_one_name_are_told_apart_and_another_run_is_left_out() -> None:
    runs = [
        [("linear", ("float",), 90.0)],
        [("linear", ("float",), 5.0), ("linear", ("float",), 7.0)],
        [("linear", ("float",), 6.0), ("linear", ("float",), 8.0)],
    ]
    assert [list(one.times_us) for one in read_runs(runs)] == [[5, 6], [7, 8]]
