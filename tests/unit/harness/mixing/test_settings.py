"""What a mix is asked for: what is refused, and that doing what the hint says helps."""

from __future__ import annotations

import pytest

from modelwright.core.errors import UsageError
from modelwright.harness.mixing.settings import Settings, parse_bits, require_sound_limits


def test_bits_are_sorted_and_each_counts_once() -> None:
    assert parse_bits("4, 8,6,8") == (8, 6, 4)
    assert parse_bits("16,2") == (16, 2)


@pytest.mark.parametrize(
    ("text", "fault", "mended"),
    [
        ("8,six", "expected whole numbers", "8,6,4"),
        ("8,-4", "expected whole numbers", "8,6,4"),
        ("8,²", "expected whole numbers", "8,6,4"),
        ("", "expected whole numbers", "8,6,4"),
        ("32,8", "32 is not from 2 to 16", "8,6,4"),
        ("8,1", "1 is not from 2 to 16", "8,6,4"),
        ("8", "nothing to mix", "8,4"),
        ("8,8", "nothing to mix", "8,4"),
    ],
)
def test_bits_that_make_no_sense_are_refused(text: str, fault: str, mended: str) -> None:
    with pytest.raises(UsageError, match=fault) as refused:
        parse_bits(text)
    assert refused.value.hint is not None
    assert mended in refused.value.hint
    assert len(parse_bits(mended)) >= 2


def test_one_limit_may_be_set() -> None:
    require_sound_limits(Settings(bits=(8, 4), max_drop=1.0))
    require_sound_limits(Settings(bits=(8, 4), max_error=0.1))
    with pytest.raises(UsageError, match="both limits"):
        require_sound_limits(Settings(bits=(8, 4), max_drop=1.0, max_error=0.1))


def test_a_limit_that_every_plan_keeps_to_is_none() -> None:
    require_sound_limits(Settings(bits=(8, 4), max_drop=99.9))
    with pytest.raises(UsageError, match="--max-drop 100 limits nothing"):
        require_sound_limits(Settings(bits=(8, 4), max_drop=100.0))
