"""The table of targets for language models."""

from __future__ import annotations

import re

import pytest

from modelwright.core.errors import UsageError
from modelwright.targets.language.table import TABLE, get_target, target_names


def test_a_target_is_what_the_table_calls_it() -> None:
    assert [get_target(name).record.name for name in target_names()] == list(target_names())


@pytest.mark.parametrize("name", ["ort-fp23", "ort", "nothing like it"])
def test_a_target_that_is_suggested_is_one(name: str) -> None:
    with pytest.raises(UsageError, match=r"no target .* for language models") as caught:
        get_target(name)
    told = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", caught.value.hint or "")
    assert told
    assert all(get_target(suggested).record.name == suggested for suggested in told)
    assert name != "nothing like it" or set(told) == set(TABLE)
