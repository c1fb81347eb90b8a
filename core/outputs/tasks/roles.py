"""What each output of a model means, found in FP32's own answers: names, shapes and values over the samples.

Nothing here looks at a candidate: roles are settled before anything is judged by them. A user who knows better says
`--task`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from modelwright.core.errors import UsageError
from modelwright.core.outputs.tasks.rows import RowFormat, are_turned, as_box_rows, find_rows, looks_like_boxes
from modelwright.core.outputs.tasks.signs import (
    are_alike,
    are_decisions,
    are_far_below_zero,
    are_shares,
    drop_odd,
    find_axis,
    find_sentinel,
    has_unit_rows,
    has_varying_top,
    is_number,
    is_probability,
    is_signal,
    is_within_one,
    lies_in_a_plane,
    mostly_tops_at_an_end,
    moves_in_a_plane,
    spread_indices,
)
from modelwright.core.records.codec import Count, Number, Record

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]

Role = Literal["classes", "tokens", "mask", "boxes", "embedding", "regression", "state", "other"]
"""`classes` one answer a sample; `tokens` one a position; `mask` one a pixel; `boxes` rows of detections; `embedding` a
vector for comparing; `regression` numbers that mean something each; `state` what the model is fed with in its next
step; `other` all else, judged value by value."""
TASKS: tuple[Role, ...] = get_args(Role)

LOOKED_AT = 64
"""Samples that settle the roles: enough to see what varies."""
_LEAST_LOOKED_AT, _VALUES_LOOKED_AT = 8, 2**23
"""Of large outputs fewer samples do, which have to fit into memory together."""
_EMBEDDING_WIDTH = 32
"""Embeddings are 32 wide or wider; an unnamed narrower vector is not taken for one."""
_VECTOR_STEP = 32
"""Widths that are multiples of it are mostly those of vectors; hardly ever a number of classes."""
_COORDINATES = 4
"""So few values of each of many things are x, y, z and how sure; a sequence is longer, in one sample at least."""
_VOCABULARY = 16384
"""Wider than the hidden states of any model that runs outside a data centre."""

_CLASS_NAME = re.compile(r"logit|prob|softmax|class(?!_?token)|categor|\bcls\b|_cls$|^cls_|pred_label", re.IGNORECASE)
_EMBEDDING_NAME = re.compile(r"embed|feature|descriptor|latent|pooler|hidden|fingerprint", re.IGNORECASE)
_MASK_NAME = re.compile(r"mask|seg(?:ment|\b)|matte|alpha", re.IGNORECASE)
_MASKS_NAME = re.compile(r"masks", re.IGNORECASE)
"""Several masks over one image, which may overlap, as of objects; unlike a segmentation into classes."""
_REGRESSION_NAME = re.compile(
    r"depth|flow|disp|coord|landmark|keypoint|\bkpt?s?\b|pose|\bxy\b|points|offset|regress|angle|pitch|age|price",
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
        independent: Whether every class is decided by itself, as after a sigmoid; else one of them is chosen.
        rows: How the rows of boxes are read; None where the output is none, or nothing says how sure a box is.
    """

    name: str
    role: Role
    why: str
    axis: Count | None
    is_probability: bool = False
    sentinel: Number | None = None
    independent: bool = False
    rows: RowFormat | None = None


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
    reference: Sequence[Outputs],
    *,
    tasks: Mapping[str, Role] | None = None,
    labelled: bool = False,
    states: Collection[str] = (),
) -> dict[str, OutputRole]:
    """Says what each float output means.

    Args:
        reference: FP32's outputs, one mapping a sample, each [1, ...] as the model gave it.
        tasks: What the user said; see `parse_task`.
        labelled: Whether the samples carry one class each: then an output [1, classes] is one.
        states: The outputs that an input of the next step takes.

    Raises:
        UsageError: `tasks` names an output that the model does not have.
    """
    given = dict(tasks or {})
    shown = [reference[index] for index in spread_indices(len(reference), _count_looked_at(reference))]
    names = list(shown[0]) if shown else []
    unknown = sorted(set(given) - {""} - set(names))
    if unknown:
        raise UsageError(f"--task: there is no output {unknown[0]!r}", hint=f"outputs: {', '.join(names)}")
    roles = {}
    # Of detections some samples have none: the one with most of them says most.
    fullest = max(shown, key=lambda outputs: sum(map(np.size, outputs.values())), default={})
    scored = _find_scored(fullest)
    for name in names:
        values = [np.asarray(outputs[name], np.float64) for outputs in shown if is_number(np.asarray(outputs[name]))]
        if len(values) == len(shown):
            said = given.get(name) or ("state" if name in states else given.get(""))
            role = _find_role(name, values, said, labelled, name in scored)
            why = "it feeds the next step" if name in states and name not in given else role.why
            roles[name] = msgspec.structs.replace(role, why=why)
    for name, role in list(roles.items()):
        if role.role == "boxes":
            roles |= _settle_rows(role, find_rows(name, shown), roles, shown[0])
    answers = {} if any(role.role == "boxes" for role in roles.values()) else _find_answers(shown, alone=not roles)
    answers = {name: role for name, role in answers.items() if name not in states}
    return {name: (roles | answers)[name] for name in names if name in roles or name in answers}


def _count_looked_at(reference: Sequence[Outputs]) -> int:
    size = sum(map(np.size, reference[0].values())) if len(reference) else 0
    return min(LOOKED_AT, max(_LEAST_LOOKED_AT, _VALUES_LOOKED_AT // max(size, 1)))


def _settle_rows(
    boxes: OutputRole, rows: RowFormat | None, roles: Mapping[str, OutputRole], first: Outputs
) -> dict[str, OutputRole]:
    """Returns the roles of boxes and of what stands beside them: its rows are no channels."""
    settled = {boxes.name: msgspec.structs.replace(boxes, rows=rows)}
    for name in () if rows is None else rows.followers:
        if name in roles and rows is not None and roles[name].axis == rows.find_axis(first):
            settled[name] = msgspec.structs.replace(roles[name], axis=None)
    return settled


def _find_scored(outputs: Outputs) -> set[str]:
    """Returns the outputs beside which another gives a probability for each of their rows."""
    counts = {name: _count_rows(np.asarray(value)) for name, value in outputs.items()}
    likely = {
        name for name, value in outputs.items() if is_number(np.asarray(value)) and is_within_one(np.asarray(value))
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


def _find_role(name: str, values: list[Floats], given: Role | None, labelled: bool, scored: bool) -> OutputRole:
    sentinel = find_sentinel(values)
    clean = [drop_odd(value, sentinel) for value in values]
    shape = values[0].shape
    axis = find_axis(clean)
    likely = is_probability(clean)
    if given is not None:
        role, why = given, "--task"
        if role in ("classes", "tokens") and values[0].size <= 1 and not likely:
            role, why = "regression", "--task, but it is one value"
    else:
        role, why = _guess(name, clean, axis, labelled, scored)
    if role in ("classes", "tokens") and axis is None:
        axis = len(shape) - 1
    if role in ("regression", "other") and len(shape) == 2 and shape[1] >= _EMBEDDING_WIDTH and is_signal(clean):
        axis = None  # positions in time are no channels: each means the same
    if role == "boxes":
        rows = as_box_rows(values[0], turned=are_turned(values))
        # The columns: sides, scores. Of an output that cannot be read as rows, the axis that was found stays.
        axis = axis if rows is None else len(shape) - (2 if are_turned(values) else 1)
    return OutputRole(
        name=name,
        role=role,
        why=why,
        axis=axis,
        is_probability=likely,
        sentinel=sentinel,
        independent=_is_independent(role, name, clean, axis, labelled),
    )


def _is_independent(role: Role, name: str, clean: list[Floats], axis: int | None, labelled: bool) -> bool:
    """Whether classes are decided each by itself: of one class, or no shares of a whole, probabilities or logits."""
    if role not in ("classes", "tokens", "mask"):
        return False
    if axis is None or clean[0].shape[axis] == 1:
        return True
    if (labelled and role == "classes") or are_shares(clean, axis):
        return False
    if role == "mask" and _MASKS_NAME.search(name):
        return not moves_in_a_plane(clean, axis)
    return is_probability(clean) or (role == "classes" and are_far_below_zero(clean, axis))


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

    @property
    def positions(self) -> int:
        """How many decisions an output of rank 3 makes at most, were its channels classes."""
        return max(value.size for value in self.clean) // self.width if self.rank == 3 else 0

    @property
    def is_lone(self) -> bool:
        """Whether there never is more than one value."""
        return max(value.size for value in self.clean) <= 1

    @property
    def decides(self) -> bool:
        """Whether its values are decisions, each by itself."""
        named = _REGRESSION_NAME.search(self.name)
        return self.rank <= 4 and not named and is_probability(self.clean) and are_decisions(self.clean)

    @property
    def looks_chosen(self) -> bool:
        """Whether its values move as trained logits do: normalized features do so too, to the last bit."""
        if not moves_in_a_plane(self.clean, self.axis):
            return False
        doubtful = self.rank == 2 and self.width >= _EMBEDDING_WIDTH
        doubtful &= self.width % _VECTOR_STEP == 0 or lies_in_a_plane(self.clean)
        return not doubtful or has_varying_top(self.clean)

    @property
    def looks_like_a_vector(self) -> bool:
        """Whether its width is a usual one of vectors, or its channels are alike; units of their own are not."""
        return self.width % _VECTOR_STEP == 0 or are_alike(self.clean)


_Sign = tuple[str, Callable[[_Seen], Role | None]]

_SIGNS: tuple[_Sign, ...] = (
    ("one value a sample", lambda s: "regression" if s.is_lone and not s.decides else None),
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
    ("its values are next to 0 or 1, each by itself", lambda s: s.chosen if s.decides else None),
    ("its rows have length 1", lambda s: "embedding" if s.rank == 2 and has_unit_rows(s.clean) else None),
    (
        "one probability a pixel",
        lambda s: "mask" if s.rank >= 4 and s.width == 1 and is_probability(s.clean) else None,
    ),
    (
        "the sum over its channels hardly moves, as of trained logits",
        lambda s: s.chosen if s.rank in (2, 4) and s.width >= 2 and s.looks_chosen else None,
    ),
    (
        "the sum over its channels hardly moves, and most positions name the first or last: nothing",
        lambda s: (
            "tokens"
            if s.positions > _COORDINATES and mostly_tops_at_an_end(s.clean, s.axis) and s.looks_chosen
            else None
        ),
    ),
    ("as many channels as a vocabulary has", lambda s: "tokens" if s.rank == 3 and s.width >= _VOCABULARY else None),
    (
        "a long vector whose neighbours move together",
        lambda s: "other" if s.rank == 2 and s.width >= _EMBEDDING_WIDTH and is_signal(s.clean) else None,
    ),
    (
        "a long vector without a sign of classes",
        lambda s: "embedding" if s.rank == 2 and s.width >= _EMBEDDING_WIDTH and s.looks_like_a_vector else None,
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
