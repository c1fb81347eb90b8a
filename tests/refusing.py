"""What tests of refusals share: an act is refused, and its hint is what they follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelwright.core.errors import ModelwrightError


def refused(act: Callable[[], Any], words: str) -> str:
    """Returns the hint of what an act is refused with."""
    with pytest.raises(ModelwrightError, match=words) as caught:
        act()
    assert caught.value.hint
    return caught.value.hint
