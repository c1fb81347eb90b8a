"""Vectors that are compared with each other: their direction, and who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.roles import OutputRole

Array = npt.NDArray[Any]

NEIGHBOURS = 5
NEIGHBOUR_LOSS = (0.1, 0.5)
"""Share of the nearest neighbours (of `NEIGHBOURS`) that are others than FP32's: good, broken."""
COSINE_LOSS = (0.01, 0.1)
"""1 - mean cosine of a vector with FP32's own."""
_MOST_VECTORS = 1024
_FEWEST_VECTORS = 3 * NEIGHBOURS
_TIE = 0.02
"""Neighbours as near as FP32's own up to this share of the spread of similarities are as good."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingFidelity:
    """How far the vectors serve as FP32's do.

    Attributes:
        vectors: Compared.
        cosine: Mean cosine of a vector with FP32's.
        neighbours: Share of FP32's nearest neighbours that are still among the nearest; None with too few vectors.
    """

    vectors: int
    cosine: float
    neighbours: float | None


class EmbeddingMeter:
    """Keeps up to 1024 vectors of each side in float32."""

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._expected: list[Array] = []
        self._found: list[Array] = []

    def add(self, expected: Array, found: Array) -> None:
        """Takes FP32's vectors [..., width] and the candidate's; those that FP32 leaves NaN are skipped."""
        wanted = np.asarray(expected, np.float32).reshape(-1, np.shape(expected)[-1])
        have = np.asarray(found, np.float32).reshape(wanted.shape)
        sound = ~np.isnan(wanted).any(axis=1)
        if len(self._expected) < _MOST_VECTORS:
            self._expected.extend(wanted[sound])
            self._found.extend(have[sound])

    def result(self) -> EmbeddingFidelity | None:
        """Returns what was seen; None without a vector."""
        if not self._expected:
            return None
        wanted, have = (_to_units(np.array(rows[:_MOST_VECTORS])) for rows in (self._expected, self._found))
        cosine = float(np.mean((wanted * have).sum(axis=1)))
        return EmbeddingFidelity(vectors=len(wanted), cosine=cosine, neighbours=_share_neighbours(wanted, have))

    def kept(self) -> float | None:
        """Returns the mean cosine with FP32's vectors."""
        seen = self.result()
        return None if seen is None else seen.cosine

    def checks(self) -> list[Check]:
        """Returns the findings: direction and neighbours."""
        seen = self.result()
        if seen is None:
            return []
        checks = [
            Check(
                output=self.role.name,
                measure="cosine",
                value=1 - seen.cosine,
                good=COSINE_LOSS[0],
                broken=COSINE_LOSS[1],
                text=f"mean cosine with FP32's vectors is {seen.cosine:.4f}",
            )
        ]
        if seen.neighbours is not None:
            checks.append(
                Check(
                    output=self.role.name,
                    measure="neighbours",
                    value=1 - seen.neighbours,
                    good=NEIGHBOUR_LOSS[0],
                    broken=NEIGHBOUR_LOSS[1],
                    text=f"{seen.neighbours:.0%} of the {NEIGHBOURS} nearest neighbours are FP32's "
                    f"(of {seen.vectors} vectors)",
                )
            )
        return checks


def _to_units(rows: Array) -> Array:
    lengths = np.linalg.norm(np.nan_to_num(rows.astype(np.float64)), axis=1, keepdims=True)
    return np.asarray(np.nan_to_num(rows.astype(np.float64)) / np.maximum(lengths, 1e-30))


def _share_neighbours(wanted: Array, have: Array) -> float | None:
    if len(wanted) < _FEWEST_VECTORS:
        return None
    similar, found = wanted @ wanted.T, have @ have.T
    np.fill_diagonal(similar, -np.inf)
    np.fill_diagonal(found, -np.inf)
    finite = similar[np.isfinite(similar)]
    spread = float(finite.std())
    if spread < 1e-9:
        return None  # all vectors are alike: nobody is nearer than anybody
    least = np.sort(similar, axis=1)[:, -NEIGHBOURS]
    chosen = np.argsort(-found, axis=1, kind="stable")[:, :NEIGHBOURS]
    nearness = np.take_along_axis(similar, chosen, axis=1)
    return float(np.mean(nearness >= (least - _TIE * spread)[:, None]))
