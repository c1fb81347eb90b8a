"""How closely one set of outputs follows another: FP32's and an artifact's, by value, inference by inference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PERMUTATION_COSINE = 0.99
"""A candidate that follows this well after its axes are swapped is right but in another layout."""


@dataclass(frozen=True, kw_only=True)
class OutputFidelity:
    """One output's.

    Attributes:
        name: Of the output.
        cosine_mean: Mean over inferences of the cosine between FP32's output and the candidate's, flattened; for
            integers and booleans the share of equal elements. None when nothing could be compared.
        cosine_min: The least of them.
        max_abs_error: Largest difference of an element.
        relative_l2_error: Norm of all differences over the norm of FP32's outputs.
        r_squared: Share of the variation between inferences that is followed; None with fewer than 4 inferences
            or without variation. A candidate that always says the same has 0 or less.
        nonfinite: NaN and infinite elements where FP32 has none.
        shape_fault: FP32's shape and another one that was seen, or None.
        layout: The permutation of axes that makes it follow, when it does not without.
    """

    name: str
    cosine_mean: float | None
    cosine_min: float | None
    max_abs_error: float | None
    relative_l2_error: float | None
    r_squared: float | None
    nonfinite: int
    shape_fault: str | None = None
    layout: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """All outputs', and what is said of the whole.

    Attributes:
        samples: Number of inferences compared.
        cosine: Mean cosine of the worst output.
        agreement: Share of top-1 decisions that are the same, 0 to 1; None when no output reads as class scores.
        agreement_reason: Why it is None.
        worst_output: The name of the output with the least cosine.
        outputs: By output, in order.
    """

    samples: int
    cosine: float | None
    agreement: float | None
    agreement_reason: str | None
    worst_output: str | None
    outputs: tuple[OutputFidelity, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Fidelity:
        outputs = tuple(
            OutputFidelity(**{**item, "layout": None if item["layout"] is None else tuple(item["layout"])})
            for item in data["outputs"]
        )
        return Fidelity(**{**data, "outputs": outputs})


@dataclass
class _Sums:
    """Running sums of one output; nothing of an inference is kept but its mean."""

    cosines: list[float] = field(default_factory=list)
    max_abs: float = 0.0
    squared_error: float = 0.0
    squared_norm: float = 0.0
    sum_reference: Array | None = None
    count: int = 0
    nonfinite: int = 0
    shape_fault: str | None = None
    layouts: list[tuple[int, ...] | None] = field(default_factory=list)


class FidelityMeter:
    """Compares inference after inference in bounded memory."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._samples = 0
        self._decisions = 0
        self._agreed = 0

    def add(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Adds one inference.

        Args:
            reference: FP32's outputs by name.
            candidate: The artifact's; one that is missing counts as a wrong shape.
        """
        self._samples += 1
        for name, expected in reference.items():
            sums = self._sums.setdefault(name, _Sums())
            got = candidate.get(name)
            if got is None:
                sums.shape_fault = "the output is missing"
            elif np.shape(got) != np.shape(expected):
                sums.shape_fault = f"{list(np.shape(got))} instead of {list(np.shape(expected))}"
            else:
                _add_output(sums, np.asarray(expected), np.asarray(got))
        primary = find_scores(reference)
        if primary is None or primary not in candidate:
            return
        if np.shape(candidate[primary]) == np.shape(reference[primary]):
            expected_top = np.argmax(reference[primary], axis=-1)
            self._decisions += expected_top.size
            self._agreed += int(np.sum(expected_top == np.argmax(candidate[primary], axis=-1)))

    def result(self) -> Fidelity:
        """Returns the comparison of everything added so far."""
        outputs = tuple(_finish_output(name, sums) for name, sums in self._sums.items())
        compared = [output for output in outputs if output.cosine_mean is not None]
        worst = min(compared, key=lambda output: output.cosine_mean or 0.0, default=None)
        return Fidelity(
            samples=self._samples,
            cosine=None if worst is None else worst.cosine_mean,
            agreement=self._agreed / self._decisions if self._decisions else None,
            agreement_reason=None if self._decisions else "no float output has the shape of class scores",
            worst_output=None if worst is None else worst.name,
            outputs=outputs,
        )


def find_scores(outputs: Mapping[str, Array]) -> str | None:
    """Returns the output that reads as class scores: the first float one, [batch, classes] or [batch, n, classes]."""
    for name, value in outputs.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and array.ndim in (2, 3) and array.shape[-1] > 1:
            return name
    return None


def count_correct(outputs: Mapping[str, Array], label: int) -> int:
    """Returns 1 when the top class of the scores is `label`, else 0; scores of one row only."""
    name = find_scores(outputs)
    if name is None:
        return 0
    scores = np.asarray(outputs[name])
    return int(scores.ndim == 2 and scores.shape[0] == 1 and int(np.argmax(scores[0])) == int(label))


def explain_divergence(fidelity: Fidelity, *, min_cosine: float) -> str | None:
    """Returns why outputs do not follow FP32, or None when they do.

    Args:
        fidelity: The comparison.
        min_cosine: Mean cosine that every output must reach.
    """
    for output in fidelity.outputs:
        if output.shape_fault is not None:
            return f"output {output.name} has a wrong shape: {output.shape_fault}"
        if output.nonfinite:
            return f"output {output.name} holds {output.nonfinite} NaN or infinite values where FP32 has none"
    for output in fidelity.outputs:
        if output.cosine_mean is None or output.cosine_mean >= min_cosine:
            continue
        text = (
            f"output {output.name} has a mean cosine of {output.cosine_mean:.4f} with FP32 over {fidelity.samples} "
            f"samples, at least {min_cosine:g} is expected"
        )
        if output.layout is not None:
            text += f"; with its axes permuted as {list(output.layout)} it would follow: its layout is wrong"
        return text
    return None


def _add_output(sums: _Sums, expected: Array, got: Array) -> None:
    if expected.dtype.kind not in "fc":
        sums.cosines.append(float(np.mean(expected == got)) if expected.size else 1.0)
        sums.count += 1
        return
    finite = np.isfinite(expected)
    sums.nonfinite += int(np.sum(finite & ~np.isfinite(got)))
    # Infinities that FP32 has too (masks) are compared by place, not by size.
    reference = np.where(finite, expected, 0.0).astype(np.float64)
    value = np.where(finite & np.isfinite(got), got, 0.0).astype(np.float64)
    difference = value - reference
    if difference.size:
        sums.max_abs = max(sums.max_abs, float(np.max(np.abs(difference))))
    sums.squared_error += float(np.sum(difference**2))
    sums.squared_norm += float(np.sum(reference**2))
    cosine = _cosine(reference, value)
    sums.cosines.append(cosine)
    sums.layouts.append(_find_layout(reference, value) if cosine < _PERMUTATION_COSINE else None)
    if sums.sum_reference is None:
        sums.sum_reference = np.zeros_like(reference)
    if sums.sum_reference.shape == reference.shape:
        sums.sum_reference += reference
        sums.count += 1


def _cosine(reference: Array, value: Array) -> float:
    """Returns the cosine; 1 when both are zero everywhere, 0 when only one is."""
    norms = float(np.linalg.norm(reference)) * float(np.linalg.norm(value))
    if norms == 0.0:
        return 1.0 if not reference.any() and not value.any() else 0.0
    return float(np.clip(np.sum(reference * value) / norms, -1.0, 1.0))


def _find_layout(reference: Array, value: Array) -> tuple[int, ...] | None:
    """Returns the permutation that makes `value` follow, as a channels-last output of a channels-first model needs."""
    if not 3 <= reference.ndim <= 5:
        return None
    for axes in itertools.permutations(range(reference.ndim)):
        permuted = np.transpose(value, axes)
        if permuted.shape == reference.shape and _cosine(reference, permuted) >= _PERMUTATION_COSINE:
            return axes
    return None


def _finish_output(name: str, sums: _Sums) -> OutputFidelity:
    is_float = sums.squared_norm > 0.0 or bool(sums.layouts)
    relative = None
    if is_float:
        relative = math.sqrt(sums.squared_error / sums.squared_norm) if sums.squared_norm else None
        if relative is None and sums.squared_error == 0.0:
            relative = 0.0
    layouts = {layout for layout in sums.layouts if layout is not None}
    return OutputFidelity(
        name=name,
        cosine_mean=float(np.mean(sums.cosines)) if sums.cosines else None,
        cosine_min=float(np.min(sums.cosines)) if sums.cosines else None,
        max_abs_error=sums.max_abs if is_float else None,
        relative_l2_error=relative,
        r_squared=_r_squared(sums),
        nonfinite=sums.nonfinite,
        shape_fault=sums.shape_fault,
        layout=next(iter(layouts)) if len(layouts) == 1 else None,
    )


def _r_squared(sums: _Sums) -> float | None:
    if sums.sum_reference is None or sums.count < 4:
        return None
    between = sums.squared_norm - float(np.sum(sums.sum_reference**2)) / sums.count
    if between <= 1e-9 * sums.squared_norm:
        return None
    return 1.0 - sums.squared_error / between
