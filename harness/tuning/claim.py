"""What the search in a folder is of: written down before anything is built into it, and held against what is asked now.

Trials of two searches cannot be compared, and building for one of them would replace the artifacts of the other. So
each fact is compared as soon as it is known: what was typed at once, the model before it replaces the earlier one, the
samples before the first target is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from modelwright.core.errors import BadInputError
from modelwright.core.files import is_plain_file, write_json
from modelwright.core.records.codec import Record, encode, read_record
from modelwright.harness.formatting import shorten
from modelwright.harness.tuning.study import JOURNAL, require_plain
from modelwright.harness.tuning.writing import RESULT

CLAIM = "search.json"
_SHOWN = 120
"""Characters of a fact in a message."""
_LEFT = frozenset({"artifacts", "model", CLAIM})
"""What a search leaves that was interrupted before its first trial."""
_HINT = "choose another --out, or add --overwrite to begin anew"


class _Facts(Record):
    """What `CLAIM` holds."""

    schema: Literal[1] = 1
    facts: Mapping[str, str]


class Claim:
    """A folder that holds one search.

    Args:
        folder: Exists, and is held by this process.
        overwrite: Begin anew, whatever it holds.

    Raises:
        BadInputError: It holds something else than a search, or what is kept of one is damaged.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self._folder, self._path = folder, folder / CLAIM
        self._facts: dict[str, str] = {}
        self._earlier: Mapping[str, str] = {}
        kept = (folder / JOURNAL, folder / RESULT)
        if overwrite:
            for path in (self._path, *kept):
                if path.is_symlink() or path.is_file():
                    path.unlink()
            return
        require_plain(kept[0])
        if is_plain_file(folder, CLAIM):
            found = read_record(_Facts, self._path, what="what a search is of", hint=_HINT)
            if any(path.exists() for path in kept):
                self._earlier = found.facts
            return
        others = [path.name for path in folder.iterdir() if path.name not in _LEFT and not path.name.startswith(".")]
        if others:
            raise BadInputError(
                f"{folder} exists and holds something else than a search: {', '.join(sorted(others)[:5])}",
                hint="choose another --out, or add --overwrite to write into it",
            )

    def settle(self, **facts: str) -> None:
        """Writes down what the search is of, or finds it as it was.

        Args:
            facts: Name, with underscores for blanks -> what it is now.

        Raises:
            BadInputError: The search in the folder is of something else; says what it was and what it is.
        """
        now = {name.replace("_", " "): value for name, value in facts.items()}
        others = [
            f"{name} {_show(self._earlier[name])} then and {_show(value)} now"
            for name, value in now.items()
            if name in self._earlier and self._earlier[name] != value
        ]
        if others:
            raise BadInputError(f"{self._folder} holds another search: {'; '.join(others)}", hint=_HINT)
        self._facts |= now
        write_json(self._path, encode(_Facts(facts={**self._earlier, **self._facts})))


def _show(fact: str) -> str:
    return shorten(fact, _SHOWN) or "not given"
