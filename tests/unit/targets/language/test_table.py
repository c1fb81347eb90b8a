"""The table of targets for language models."""

from __future__ import annotations

import pytest

from modelwright.core.errors import UsageError
from modelwright.targets.language.table import get_target, target_names


def test_a_target_is_what_the_table_calls_it() -> None:
    assert [get_target(name).record.name for name in target_names()] == list(target_names())


def test_an_unknown_target_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no target 'ort-int2'"):
        get_target("ort-int2")
