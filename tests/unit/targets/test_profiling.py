"""Profiles made of scripted times, with known answers."""

from __future__ import annotations

import msgspec
import pytest

from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile, Remedy
from modelwright.targets import profiling
from modelwright.targets.profiling import TimedOperator, make_profile, run_inferences, typical


def operator(name: str, kind: str, precision: str | None, *times_us: float, of: str = "") -> TimedOperator:
    return TimedOperator(name=name, type=of or name, kind=kind, precision=precision, times_us=times_us)  # type: ignore[arg-type]


PROFILE = make_profile(
    "a script",
    [
        operator("conv1", "compute", "int8", 60, of="QLinearConv"),
        operator("conv2", "compute", "int8", 20, of="QLinearConv"),
        operator("conv3", "compute", "fp32", 10, of="Conv"),
        operator("swish", "other", "fp32", 50, of="HardSwish"),
        operator("q", "conversion", None, 40, of="QuantizeLinear"),
        operator("shape", "other", None, 20, of="Shape"),
    ],
    [300.0, 250.0, 9000.0],
    {name: Remedy(type=name, reason="has no integer kernel") for name in ("HardSwish", "PRelu", "QLinearConv")},
)


def test_one_integer_operator_does_not_name_a_session() -> None:
    assert PROFILE.shares_by_precision() == pytest.approx({"int8": 0.4, "fp32": 0.3, "conversions": 0.2, "other": 0.1})
    assert PROFILE.main_precision() == "int8", "of what multiplies"
    times = [operator("a", "compute", "int8", 1), operator("b", "compute", "fp32", 9)]
    assert make_profile("", times, [10.0], {}).main_precision() == "fp32"


def test_without_what_multiplies_all_operators_name_it() -> None:
    assert make_profile("", [operator("relu", "other", "fp32", 1)], [1.0], {}).main_precision() == "fp32"
    assert make_profile("", [operator("shape", "other", None, 1)], [1.0], {}).main_precision() is None
    assert make_profile("", [], [1.0], {}).shares_by_precision() == {}


def test_types_sum_up_their_operators_and_the_longest_come_first() -> None:
    assert [(entry.type, entry.count, entry.time_us) for entry in PROFILE.types][:3] == [
        ("QLinearConv", 2, 80), ("HardSwish", 1, 50), ("QuantizeLinear", 1, 40),
    ]  # fmt: skip
    assert [found.name for found in PROFILE.operators] == ["conv1", "swish", "q", "conv2", "shape", "conv3"]
    assert (PROFILE.operators_us, PROFILE.inference_us, PROFILE.count) == (200, 250, 6)
    assert PROFILE.share_where(lambda entry: entry.precision == "fp32") == pytest.approx(0.3)


def test_remedies_are_of_the_types_that_ran_in_float() -> None:
    assert [remedy.type for remedy in PROFILE.remedies] == ["HardSwish"]


def test_a_profile_is_bounded_and_loses_no_time() -> None:
    profile = make_profile("", [operator(f"n{i}", "other", "fp32", 1, of="Add") for i in range(1000)], [1000.0], {})
    assert len(profile.operators) == profiling.LISTED
    assert [(entry.count, entry.time_us, entry.share) for entry in profile.types] == [(1000, 1000, 1)]
    long = make_profile("", [operator("n" * 1000, "other", "fp32", 1)], [1.0], {})
    assert len(long.operators[0].name) == 200


def test_a_disturbance_does_not_count_and_whole_microseconds_average_out() -> None:
    assert typical([2, 3, 2, 3, 2, 3, 2, 9000]) == pytest.approx(17 / 7)
    assert typical([0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4000]) == pytest.approx(0.2), "of a fifth of a microsecond"
    assert typical([100, 103, 99, 101, 140]) == pytest.approx(100.75)
    assert (typical([5]), typical([])) == (5, 0)


def test_the_number_of_inferences_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    assert len(run_inferences(lambda: calls.append(None))) == profiling.MOST_INFERENCES
    assert len(calls) == profiling.MOST_INFERENCES + profiling.WARM_UPS
    monkeypatch.setattr(profiling, "BUDGET_S", 0.0)
    after: list[None] = []
    assert len(run_inferences(lambda: None, lambda: after.append(None))) == profiling.LEAST_INFERENCES == len(after)


def test_it_is_written_and_read_back() -> None:
    assert msgspec.convert(encode(PROFILE), OperatorProfile) == PROFILE
