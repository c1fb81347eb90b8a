"""What each output of a model means, found in FP32's own answers: names, shapes and values over the samples.

Nothing here looks at a candidate: roles are settled before anything is judged by them. A user who knows better says
`--task`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import UsageError
from modelwright.core.outputs.tasks.signs import (
    are_ranked,
    are_shares,
    as_box_rows,
    drop_odd,
    find_axis,
    find_sentinel,
    has_unit_rows,
    is_probability,
    is_signal,
    is_within_one,
    looks_like_boxes,
    moves_in_a_plane,
    spread_indices,
)
from modelwright.core.records.codec import Count, Number, Record

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]

Role = Literal["classes", "tokens", "mask", "boxes", "embedding", "regression", "other"]
"""`classes` one answer a sample; `tokens` one a position; `mask` one a pixel; `boxes` rows of detections; `embedding` a
vector for comparing; `regression` numbers that mean something each; `other` all else, judged value by value."""
TASKS: tuple[Role, ...] = get_args(Role)

LOOKED_AT = 64
"""Samples that settle the roles: enough to see what varies."""
_EMBEDDING_WIDTH = 32
"""Embeddings are 32 wide or wider; an unnamed narrower vector is not taken for one."""

_CLASS_NAME = re.compile(r"logit|prob|softmax|class(?!_?token)|categor|\bcls\b|_cls$|^cls_|pred_label", re.IGNORECASE)
_EMBEDDING_NAME = re.compile(r"embed|feature|descriptor|latent|pooler|hidden|fingerprint", re.IGNORECASE)
_MASK_NAME = re.compile(r"mask|seg(?:ment|\b)|matte|alpha", re.IGNORECASE)
_REGRESSION_NAME = re.compile(
    r"depth|flow|disp|coord|landmark|keypoint|\bkps?\b|pose|\bxy\b|points|offset|regress|angle|pitch|age|price",
    re.IGNORECASE,
)
_COUNT_NAME = re.compile(r"num|count|len|size|index", re.IGNORECASE)


class OutputRole(Record):
    """What one output means.

    Attributes:
        name: Of the output.
        role: Its task.
        why: What said so: for people.
        axis: The axis along which meaning changes (classes, coordinates, features), counted in the output with its
            batch dimension; None for an output of one value a sample.
        is_probability: Whether all values lie within 0 and 1 and use that range: one unit, in which a hundredth is
            little.
        sentinel: A value that stands for "masked" and is no number of the model's, such as -1e9; None without one.
        by_rank: Whether rows stand where their score puts them: then row 5 is another thing when two scores tie.
    """

    name: str
    role: Role
    why: str
    axis: Count | None
    is_probability: bool = False
    sentinel: Number | None = None
    by_rank: bool = False


def parse_task(text: str) -> dict[str, Role]:
    """Reads `--task`: `classes` for all outputs, or `logits=classes,boxes=boxes` by name.

    Returns:
        Output name -> role; the empty name stands for every output not named.

    Raises:
        UsageError: An unknown task.
    """
    found: dict[str, Role] = {}
    for part in text.split(","):
        name, separator, task = part.strip().rpartition("=")
        if task not in TASKS or (separator and not name):
            raise UsageError(
                f"--task: {part.strip()!r} is none of {', '.join(TASKS)}",
                hint="say --task classes, or --task OUTPUT=classes,OTHER=boxes for outputs of different kinds",
            )
        found[name] = task
    return found


def find_roles(
    reference: Sequence[Outputs], *, tasks: Mapping[str, Role] | None = None, labelled: bool = False
) -> dict[str, OutputRole]:
    """Says what each float output means.

    Args:
        reference: FP32's outputs, one mapping a sample, each [1, ...] as the model gave it.
        tasks: What the user said; see `parse_task`.
        labelled: Whether the samples carry one class each: then an output [1, classes] is one.

    Raises:
        UsageError: `tasks` names an output that the model does not have.
    """
    given = dict(tasks or {})
    shown = [reference[index] for index in spread_indices(len(reference), LOOKED_AT)]
    names = list(shown[0]) if shown else []
    unknown = sorted(set(given) - {""} - set(names))
    if unknown:
        raise UsageError(f"--task: there is no output {unknown[0]!r}", hint=f"outputs: {', '.join(names)}")
    roles = {}
    scored = _find_scored(shown[0]) if shown else set()
    for name in names:
        values = [np.asarray(outputs[name], np.float64) for outputs in shown if is_number(np.asarray(outputs[name]))]
        if len(values) == len(shown):
            roles[name] = _find_role(name, values, given.get(name, given.get("")), labelled, name in scored)
    answers = {} if any(role.role == "boxes" for role in roles.values()) else _find_answers(shown, alone=not roles)
    return {name: (roles | answers)[name] for name in names if name in roles or name in answers}


def _find_scored(first: Outputs) -> set[str]:
    """Returns the outputs beside which another gives a probability for each of their rows."""
    counts = {name: _count_rows(np.asarray(value)) for name, value in first.items()}
    likely = {
        name for name, value in first.items() if is_number(np.asarray(value)) and is_within_one(np.asarray(value))
    }
    return {name for name, rows in counts.items() if any(counts[other] == rows for other in likely - {name})}


def _count_rows(value: Array) -> int | None:
    shape = value.shape[1:] if value.ndim >= 2 and value.shape[0] == 1 else value.shape
    return shape[0] if shape else None


def _find_answers(shown: Sequence[Outputs], *, alone: bool) -> dict[str, OutputRole]:
    """Returns the roles of outputs that hold classes or flags themselves, of a model without detections.

    Args:
        shown: FP32's outputs.
        alone: Whether no output holds floats: then the first one is the answer, whatever its shape.
    """
    found = {}
    for index, name in enumerate(shown[0] if shown else ()):
        value = np.asarray(shown[0][name])
        if value.dtype.kind not in "iub":
            continue
        is_map = value.ndim >= 3 and min(value.shape[-2:]) > 1
        if is_map or (alone and index == 0) or (value.size == 1 and not _COUNT_NAME.search(name)):
            role: Role = "mask" if is_map else "classes"
            found[name] = OutputRole(name=name, role=role, why="classes or flags themselves", axis=None)
    return found


def is_number(array: Array) -> bool:
    """Whether an array holds floating-point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _find_role(name: str, values: list[Floats], given: Role | None, labelled: bool, scored: bool) -> OutputRole:
    sentinel = find_sentinel(values)
    clean = [drop_odd(value, sentinel) for value in values]
    shape = values[0].shape
    axis = find_axis(clean)
    likely = is_probability(clean)
    if given is not None:
        role, why = given, "--task"
        if role in ("classes", "tokens", "mask") and values[0].size <= 1 and role != "mask":
            role, why = "regression", "--task, but it is one value"
    else:
        role, why = _guess(name, clean, axis, labelled, scored)
    if role in ("classes", "tokens") and axis is None:
        axis = len(shape) - 1
    if role in ("regression", "other") and len(shape) == 2 and shape[1] >= _EMBEDDING_WIDTH and is_signal(clean):
        axis = None  # positions in time are no channels: each means the same
    by_rank = False
    if role == "boxes":
        rows = as_box_rows(values[0])
        by_rank = are_ranked(clean)
        # The columns: sides, scores. Of an output that cannot be read as rows, the axis that was found stays.
        axis = axis if rows is None else len(shape) - (1 if rows.shape[1] == shape[-1] else 2)
    return OutputRole(
        name=name, role=role, why=why, axis=axis, is_probability=likely, sentinel=sentinel, by_rank=by_rank
    )


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """An output as the signs look at it."""

    name: str
    clean: list[Floats]
    rank: int
    axis: int | None
    width: int
    labelled: bool
    scored: bool

    @property
    def chosen(self) -> Role:
        """What an output of class scores is, by its rank."""
        return "mask" if self.rank >= 4 else "tokens" if self.rank == 3 else "classes"


_Sign = tuple[str, Callable[[_Seen], Role | None]]

_SIGNS: tuple[_Sign, ...] = (
    ("one value a sample", lambda s: "regression" if s.clean[0].size <= 1 else None),
    ("the samples are labelled", lambda s: "classes" if s.rank == 2 and s.labelled else None),
    (
        "rows of coordinates and scores",
        lambda s: "boxes" if s.rank in (2, 3) and looks_like_boxes(s.name, s.clean, scored=s.scored) else None,
    ),
    (
        "its values, or their powers, sum to 1 over the classes",
        lambda s: s.chosen if are_shares(s.clean, s.axis) else None,
    ),
    ("its name", lambda s: _find_named(s)),
    ("its rows have length 1", lambda s: "embedding" if s.rank == 2 and has_unit_rows(s.clean) else None),
    (
        "one probability a pixel",
        lambda s: "mask" if s.rank >= 4 and s.width == 1 and is_probability(s.clean) else None,
    ),
    (
        "the sum over its channels hardly moves, as of trained logits",
        lambda s: s.chosen if s.rank in (2, 4) and s.width >= 2 and moves_in_a_plane(s.clean, s.axis) else None,
    ),
    (
        "a long vector whose neighbours move together",
        lambda s: "other" if s.rank == 2 and s.width >= _EMBEDDING_WIDTH and is_signal(s.clean) else None,
    ),
    (
        "a long vector without a sign of classes",
        lambda s: "embedding" if s.rank == 2 and s.width >= _EMBEDDING_WIDTH and s.width % 32 == 0 else None,
    ),
    ("a few values without a sign of classes", lambda s: "regression" if s.rank == 2 else None),
)
"""The surest signs first; the first that says something counts."""


def _find_named(seen: _Seen) -> Role | None:
    """Returns what the name of an output says."""
    found: Role | None = None
    if _MASK_NAME.search(seen.name) and seen.rank >= 4:
        found = "mask"
    elif seen.rank in (2, 3, 4) and seen.width >= 2 and _CLASS_NAME.search(seen.name):
        found = seen.chosen
    elif _REGRESSION_NAME.search(seen.name):
        found = "regression" if seen.rank <= 2 else "other"
    elif _EMBEDDING_NAME.search(seen.name) and not has_unit_rows(seen.clean):
        found = "embedding" if seen.rank == 2 else "other"
    return found


def _guess(name: str, clean: list[Floats], axis: int | None, labelled: bool, scored: bool) -> tuple[Role, str]:
    """Returns a role and the sign that speaks for it."""
    shape = clean[0].shape
    width = 1 if axis is None else shape[axis]
    seen = _Seen(name=name, clean=clean, rank=len(shape), axis=axis, width=width, labelled=labelled, scored=scored)
    for why, find in _SIGNS:
        role = find(seen)
        if role is not None:
            return role, why
    return "other", "nothing says more"
