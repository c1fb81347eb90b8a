"""Holds an artifact against what the user allows it to lose, on the samples that judge."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import LimitNotMetError
from modelwright.core.outputs.drop import Drop, count_drop, metric_drop
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.user_metric import compute
from modelwright.core.records.artifact import Proof
from modelwright.targets.building.evidence import Evidence

_HINT = (
    "the float targets of this runtime lose less; with more --samples the search sees better what is lost; else allow "
    "more with --max-drop"
)


class OverLimitError(LimitNotMetError):
    """An artifact loses more than the user allows.

    Attributes:
        proof: With its figures.
        recipe: How it was made; empty where it was there already.
    """

    def __init__(self, message: str, proof: Proof, *, hint: str = _HINT) -> None:
        super().__init__(message, hint=hint)
        self.proof = proof
        self.recipe: Mapping[str, Any] = {}


def find_drop(proof: Proof, evidence: Evidence, answers: Path) -> Proof:
    """Returns a proof with what was lost, where the user limits it.

    Args:
        proof: Of an artifact.
        evidence: What it was proved on, and the limit.
        answers: The artifact's, where the limit is set by the user's metric; they are removed.

    Raises:
        BadInputError: The metric fails on the artifact's answers.
    """
    limit = evidence.limit
    if limit is None:
        return proof
    drop: Drop | None
    if limit.metric is None:
        labelled = limit.by == "accuracy"
        correct, correct_fp32 = (proof.correct, proof.correct_fp32) if labelled else (None, None)
        drop = count_drop(proof.fidelity, correct, correct_fp32, proof.count, limit.max_drop)
    else:
        assert evidence.fp32_metric is not None
        found = compute(limit.metric, answers, evidence.evaluation_answers)[0]
        shutil.rmtree(answers, ignore_errors=True)
        drop = metric_drop(limit, evidence.fp32_metric, found)
    return replace(proof, drop=drop)


def is_held_alike(proof: Proof, limit: Limit | None) -> bool:
    """Whether a proof was held against the same limit; by a metric, whose file may read others, none ever was."""
    drop = proof.drop
    if limit is None or drop is None:
        return limit is None and drop is None
    return drop.by == limit.by != "metric" and drop.max_points == limit.max_drop


def require_within(name: str, proof: Proof) -> None:
    """Refuses an artifact that loses more than the user allows.

    Raises:
        OverLimitError: It does; has the figures.
    """
    drop = proof.drop
    if drop is not None and drop.is_over:
        raise OverLimitError(
            f"{name} loses too much: {drop.describe()}, where --max-drop allows {drop.max_points:g}", proof
        )


def require_known(name: str, proof: Proof | None, limit: Limit | None, reason: str | None = None) -> None:
    """Refuses an artifact of which nobody can say whether it keeps to the limit.

    Raises:
        LimitNotMetError: There is no figure; says why.
    """
    if limit is None or (proof is not None and proof.drop is not None):
        return
    if proof is None:
        raise LimitNotMetError(
            f"{name} cannot be held against --max-drop {limit.max_drop:g}: {reason}",
            hint="build it on the machine that will serve, or without --max-drop, and give that one labelled --samples "
            "with `modelwright measure`",
        )
    raise LimitNotMetError(
        f"{name} cannot be held against --max-drop {limit.max_drop:g}: FP32 gives no answer on the "
        f"{proof.count} samples that judge",
        hint="give others with --eval on which it does, or a --metric of your own",
    )
