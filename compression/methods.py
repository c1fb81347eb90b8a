"""What can be done to a network, as the user writes it: `prune:magnitude:0.3`, `distil:net.py:student`, `qat`.

Nothing here imports torch: a request that makes no sense is refused before anything is loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modelwright.core.errors import UsageError, suggest
from modelwright.core.samples.python_source import require_function

Kind = Literal["prune:magnitude", "prune:2:4", "prune:structured", "distil", "low-rank", "qat"]

FORMS: dict[Kind, str] = {
    "prune:magnitude": "prune:magnitude:0.3",
    "prune:2:4": "prune:2:4",
    "prune:structured": "prune:structured:0.5",
    "distil": "distil:FILE.py:STUDENT",
    "low-rank": "low-rank:0.5",
    "qat": "qat",
}
"""Kind -> how it is written."""
_WITH_RATIO: frozenset[Kind] = frozenset({"prune:magnitude", "prune:structured", "low-rank"})
_MAKES_ZEROS: frozenset[Kind] = frozenset({"prune:magnitude", "prune:2:4"})
_MAKES_SHAPES: frozenset[Kind] = frozenset({"prune:structured", "distil", "low-rank"})


@dataclass(frozen=True, kw_only=True)
class Method:
    """One step of a compression.

    Attributes:
        text: As the user wrote it.
        kind: What is done.
        ratio: Of weights, channels or ranks that go; 0 where the method has none.
        student: `file.py:function` that returns the network that learns; empty where none does.
    """

    text: str
    kind: Kind
    ratio: float = 0.0
    student: str = ""


def parse_methods(texts: Sequence[str]) -> tuple[Method, ...]:
    """Reads the methods of a compression, in their order.

    Raises:
        UsageError: One is unknown, its ratio is none, or they cannot follow each other.
        BadInputError: There is no such student.
    """
    if not texts:
        raise UsageError("no method is named", hint=f"name one: {', '.join(FORMS.values())}")
    methods = tuple(map(_parse, texts))
    for earlier, later in itertools.pairwise(methods):
        if earlier.kind == "qat":
            raise UsageError(
                f"{later.text} after qat: the integers that were trained would not be those that run",
                hint="name qat once" if later.kind == "qat" else f"put qat last: {later.text} qat",
            )
        if earlier.kind in _MAKES_ZEROS and later.kind in _MAKES_SHAPES:
            raise UsageError(
                f"{later.text} after {earlier.text}: shapes change, and the zeros would be trained away",
                hint=f"first {later.text}, then {earlier.text}",
            )
    return methods


def _parse(text: str) -> Method:
    for kind, form in FORMS.items():
        rest = text.removeprefix(kind)
        if rest == text or rest[:1] not in ("", ":"):
            continue
        if kind in _WITH_RATIO:
            return Method(text=text, kind=kind, ratio=_parse_ratio(text, rest.removeprefix(":"), form))
        if kind == "distil":
            require_function(rest.removeprefix(":"), "returns the student, an nn.Module")
            return Method(text=text, kind=kind, student=rest.removeprefix(":"))
        if not rest:
            return Method(text=text, kind=kind)
        raise UsageError(f"{text}: {kind} takes nothing after it", hint=f"write it as {form}")
    raise UsageError(
        f"{text} is no method of compression",
        hint=suggest(text, FORMS.values()) or f"known: {', '.join(FORMS.values())}",
    )


def _parse_ratio(text: str, ratio: str, form: str) -> float:
    try:
        value = float(ratio)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(
            f"{text}: {ratio or 'nothing'} is no ratio: a share between 0 and 1 goes, and not all of it",
            hint=f"write for instance {form}",
        )
    return value
