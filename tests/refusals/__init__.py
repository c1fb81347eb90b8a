"""Every refusal of compression, samples, exporters and targets with a hint, and the test that does what the hint says.

`test_refusal_table` holds this against what `refusal_finder` finds in the code: a refusal that is not here fails it,
and so does one that is gone. A refusal is named by its file and its message, `{}` for each value in it.
"""

from __future__ import annotations

from refusals import compression, exporters, runtimes, samples, targets
from refusals.entries import Followed, NotFollowed, Refusals

PARTS: tuple[Refusals, ...] = (compression.TABLE, samples.TABLE, exporters.TABLE, targets.TABLE, runtimes.TABLE)
TABLE: Refusals = {file: entries for part in PARTS for file, entries in part.items()}

__all__ = ["PARTS", "TABLE", "Followed", "NotFollowed"]
