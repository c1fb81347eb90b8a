"""What OpenVINO's errors say, without the lines that say where in its source they were raised."""

from __future__ import annotations

import re

_FRAME = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:$")
_CHECK = re.compile(r"Check '(.*)' failed at ")
_OPEN_RANK = re.compile(r"CPU plug-in doesn't support (\w+) operation with dynamic rank\. Operation name: (\S+)")
_SHOWN_CHARACTERS = 300


def find_cause(error: Exception) -> str:
    """Returns the first line of an error that is not a place in OpenVINO's source; the failed check where all are.

    Its errors begin with `Exception from src/inference/src/cpp/core.cpp:117:`, once for each call that was under way.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not _FRAME.match(line)]
    checks = [match[1] for line in lines if (match := _CHECK.match(line))]
    open_rank = _OPEN_RANK.search(told[0]) if told else None
    if open_rank:
        return f"how many dimensions the outputs of {open_rank[1]} {open_rank[2]} have is not known before it runs"
    found = told[0] if told else f"its check '{checks[-1]}' failed" if checks else type(error).__name__
    return found[:_SHOWN_CHARACTERS]
