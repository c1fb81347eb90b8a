"""How a compression trains, as it crosses to the process that does it; and its spans of time."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.durations import parse_duration
from modelwright.core.errors import UsageError
from modelwright.core.records.codec import Amount, Count, Record, Share
from modelwright.core.samples.python_source import is_python, require_function

LOSSES = ("cross-entropy", "mse")
BITS = re.compile(r"w([2-8])a([4-8])", re.ASCII)
_LONGEST_S = 30 * 24 * 3600.0


class Settings(Record):
    """Hyper-parameters.

    Attributes:
        loss: `cross-entropy`, `mse`, or `file.py:function`, which takes outputs and batch and returns a number.
        epochs: Passes over the training data, for each method.
        lr: Learning rate at the start; None for the method's own.
        batch: Samples a step.
        seed: Of all chance.
        budget_s: What training may take, of all methods and runs together; None for as long as it takes.
        max_drop: Points that the result may lose on the data that judges.
        augment: `file.py:function`, which takes a batch that trains and returns it changed; empty for none.
        importance: How `prune:structured` ranks channels: by their weights, or by what the loss would be without them
            (Taylor's expansion, Molchanov et al. 2019, arXiv 1906.10771).
        distil_from_source: Whether other methods than `distil` learn from the answers of the source as it was, too.
        alpha: Where a teacher's answers are learnt from: the weight of the task's own loss; the rest is theirs.
        temperature: That softens answers of classes there.
        match: Of `distil`: pairs of layers, `TEACHER=STUDENT`, whose features are to match.
        bits: Of `qat`: of weights and of activations, such as `w4a8`.
        symmetric: Whether activations are signed there, with zero in the middle, as TensorRT asks for.
    """

    loss: str = "cross-entropy"
    epochs: Count = 3
    lr: Amount | None = None
    batch: Count = 64
    seed: Count = 0
    budget_s: Amount | None = None
    max_drop: Amount | None = None
    augment: str = ""
    importance: Literal["magnitude", "taylor"] = "magnitude"
    distil_from_source: bool = False
    alpha: Share = 0.5
    temperature: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    match: tuple[str, ...] = ()
    bits: str = "w8a8"
    symmetric: bool = False


def check_settings(settings: Settings, *, is_judged: bool) -> None:
    """Refuses settings that make no sense, without running anything.

    Raises:
        UsageError: Names the setting.
        BadInputError: The function of a loss is not there.
    """
    if settings.loss not in LOSSES:
        if not is_python(settings.loss):
            raise UsageError(
                f"--loss {settings.loss} is no loss", hint=f"give {', '.join(LOSSES)}, or FILE.py:FUNCTION"
            )
        require_function(settings.loss, "returns the loss of a batch")
    if settings.augment:
        require_function(settings.augment, "changes a batch")
    if not settings.batch:
        raise UsageError("--batch 0 trains nothing", hint="give a number of samples, such as 64")
    if settings.lr == 0:
        raise UsageError("--lr 0 trains nothing", hint="give a learning rate, such as 1e-3, or --epochs 0")
    if not BITS.fullmatch(settings.bits):
        raise UsageError(
            f"--bits {settings.bits} are no widths",
            hint="give w8a8, w4a8 or others: weights of 2 to 8, activations of 4 to 8",
        )
    for pair in settings.match:
        if not all(pair.partition("=")):
            raise UsageError(f"--match {pair} is no pair of layers", hint="give TEACHER_LAYER=STUDENT_LAYER")
    if settings.max_drop is not None and not is_judged:
        raise UsageError(
            "--max-drop needs data that judges: what is held back of --train chooses among epochs already",
            hint="add --eval",
        )


def parse_budget(text: str | None) -> float | None:
    """Reads what training may take.

    Raises:
        UsageError: It is no span of time.
    """
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is None or not 1 <= seconds <= _LONGEST_S:
        raise UsageError(f"--budget {text} is no span of time", hint="give 90s, 10m or 2h; 30 days at most")
    return seconds
