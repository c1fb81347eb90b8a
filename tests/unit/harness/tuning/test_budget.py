"""What may be typed for a budget, and when it is spent."""

from __future__ import annotations

import pytest

from modelwright.core.errors import UsageError
from modelwright.harness.tuning.budget import parse_budget


@pytest.mark.parametrize(
    ("text", "seconds", "trials"),
    [("10m", 600.0, None), ("90s", 90.0, None), ("2h", 7200.0, None), ("1.5m", 90.0, None), ("40", None, 40)],
)
def test_a_budget_is_a_time_or_a_number_of_trials(text: str, seconds: float | None, trials: int | None) -> None:
    budget = parse_budget(text)
    assert (budget.seconds, budget.trials) == (seconds, trials)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "10 m",
        "-5m",
        "0",
        "0s",
        "0.5s",
        "1e3s",
        "m",
        "10d",
        "nan",
        "inf",
        "9999999h",
        "100001",
        "\u0661\u0660",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget") as caught:
        parse_budget(text)
    assert "10m" in (caught.value.hint or "")


def test_it_is_spent_by_what_it_counts() -> None:
    assert not parse_budget("10s").is_spent(seconds=9.9, trials=10**6)
    assert parse_budget("10s").is_spent(seconds=10.0, trials=0)
    assert not parse_budget("3").is_spent(seconds=1e9, trials=2)
    assert parse_budget("3").is_spent(seconds=0.0, trials=3)
