"""Whether the memory holds what comes next, said before it begins, by estimate."""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.core.errors import BuildFailedError, MeasurementInvalidError
from modelwright.core.records.language import LanguageModel
from modelwright.harness.formatting import count_noun, format_bytes
from modelwright.harness.language.judging import WINDOW
from modelwright.targets.language.contract import LanguageTargetRecord

_BUILDING_BYTES = 500 * 10**6
"""Of Python, a runtime and what a build holds beside weights and logits."""
_RUNTIME_BYTES = 250 * 10**6
"""Of a process with a runtime imported and nothing loaded: 130 MB with OpenVINO, 450 MB with PyTorch."""


def estimate_build_bytes(target: LanguageTargetRecord, model: LanguageModel) -> int:
    """Returns what building and judging an artifact take at most, by estimate.

    Args:
        target: Of the artifact.
        model: That it is built from.
    """
    weights = 4 * model.num_parameters
    logits = 4 * min(WINDOW, model.context_length) * model.vocab_size
    return _BUILDING_BYTES + round(target.weight_copies * weights) + 2 * logits


def require_build_memory(target: LanguageTargetRecord, model: LanguageModel, available: int | None) -> None:
    """Refuses a build that the memory cannot hold, before it begins.

    Args:
        target: Of the artifact.
        model: That it is built from.
        available: Memory; None where the system does not tell.

    Raises:
        BuildFailedError: Says how much is needed, by estimate.
    """
    needed = estimate_build_bytes(target, model)
    if available is not None and needed > available:
        raise BuildFailedError(
            f"building {target.name} would take about {format_bytes(needed)} of memory, by estimate, of which "
            f"{format_bytes(available)} are free",
            hint="end other programs, take a machine with more memory, or name other targets by --target",
        )


def require_room(sizes: Iterable[int], available: int | None) -> None:
    """Refuses to load artifacts that the memory does not hold together: in a measurement all are alive.

    Args:
        sizes: Of their files, in bytes.
        available: Memory; None where the system does not tell.

    Raises:
        MeasurementInvalidError: Names the estimate and what is free.
    """
    each = [size + _RUNTIME_BYTES for size in sizes]
    if available is not None and sum(each) > available:
        raise MeasurementInvalidError(
            f"{count_noun(len(each), 'artifact')} need about {format_bytes(sum(each))} of memory together, by the "
            f"sizes of their files and {format_bytes(_RUNTIME_BYTES)} for each runtime; {format_bytes(available)} are "
            "free",
            hint="name fewer by --target, or end other programs",
        )
