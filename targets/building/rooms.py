"""What loses more than the user allows where it is judged is searched again, with more room for chance.

A search expects what a candidate loses on samples that it does not see, and leaves room for bad luck. Where the luck is
worse, what is judged says that and no more: the samples that choose say which layers go back to float for more room.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from modelwright.core.outputs.limit import ROOMS, Limit
from modelwright.core.process.child import Progress
from modelwright.targets.building.limits import OverLimitError

MadeT = TypeVar("MadeT")


def keep_within(
    limit: Limit | None, attempt: Callable[[Limit | None], MadeT], staging: Path, report: Progress
) -> tuple[MadeT, list[str]]:
    """Builds with more and more room for chance, until the limit holds or a search has nothing left to put back.

    Args:
        limit: The user's; None for one attempt.
        attempt: Builds and proves what a search finds that is to keep to a limit.
        staging: The folder that it builds in: emptied between attempts.
        report: Takes a line about what is going on.

    Returns:
        What was built, and what to say of the way.

    Raises:
        OverLimitError: The last attempt's.
    """
    if limit is None:
        return attempt(None), []
    lost: list[str] = []
    for room in ROOMS:
        try:
            return attempt(replace(limit, room=room)), _explain(lost)
        except OverLimitError as error:
            if room == ROOMS[-1] or not _may_lose_less(error.recipe):
                raise
            report(f"{error.message}: searching with more room for chance")
            lost.append("" if error.proof.drop is None else f"{error.proof.drop.points:g}")
            _empty(staging)
    raise AssertionError("the last attempt returns or raises")


def _may_lose_less(recipe: Mapping[str, Any]) -> bool:
    """Whether a search that has to leave more room may choose otherwise: it found what it was after, and stopped."""
    search = recipe.get("search")
    return isinstance(search, Mapping) and search.get("ended_by") == "goal"


def _explain(lost: list[str]) -> list[str]:
    """Returns a sentence on an artifact that was not the first to be judged; nothing where it was."""
    if not lost:
        return []
    return [
        f"what was chosen before lost {' and '.join(lost)} points on the samples that judge; this was chosen to leave "
        f"more room for chance, so that these samples judged {len(lost) + 1} artifacts"
    ]


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
