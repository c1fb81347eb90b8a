"""Artifacts that were proved on different samples: their shares are of different things, and are not compared."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from modelwright.core.records.artifact import Artifact
from modelwright.harness.results.record import Comparison, Measurement

_QUALITY = ("accuracy", "agreement", "kept", "cosine")


def set_apart(comparison: Comparison, artifacts: Mapping[str, Artifact], *, counted: bool) -> Comparison:
    """Returns the comparison without the figures of quality that were taken on other samples than the baseline's.

    A row without them stands on no front and is not the one to ship; why they are missing is said beside it.

    Args:
        comparison: Of artifacts, before it is judged.
        artifacts: By the name of their row.
        counted: Whether right answers were counted here, on samples that all artifacts were given: then those compare.
    """
    groups = _group(artifacts)
    if len(groups) < 2:
        return comparison
    base = next(key for key, names in groups.items() if comparison.baseline in names)
    apart = {name: key for key, names in groups.items() if key != base for name in names}
    rows = [
        _without_quality(row, _tell(artifacts[row.target]), _tell(artifacts[comparison.baseline]))
        if row.target in apart and not (counted and row.accuracy is not None)
        else row
        for row in comparison.measurements
    ]
    return replace(comparison, measurements=tuple(rows), warnings=(*comparison.warnings, _warn(artifacts, groups)))


def _without_quality(row: Measurement, own: str, base: str) -> Measurement:
    """Returns a row without what is compared between rows; what it loses against FP32, by itself, is kept."""
    reason = f"proved on {own}, the baseline on {base}"
    lost = dict.fromkeys(key for key in _QUALITY if getattr(row, key) is not None)
    rest = {
        "accuracy_ci95": None,
        "accuracy_fp32": None,
        "evaluated": None,
        "correct": None,
        "fidelity": None,
        "chain": None,
        "fits": (),
        "labels": None,
    }
    return replace(row, **lost, **rest, unavailable={**row.unavailable, **dict.fromkeys(lost, reason)})


def _group(artifacts: Mapping[str, Artifact]) -> dict[str | None, list[str]]:
    """Returns the hash of the samples that judged -> the artifacts that were proved on them."""
    groups: dict[str | None, list[str]] = {}
    for name, artifact in artifacts.items():
        part = artifact.manifest.samples.evaluation
        groups.setdefault(None if part is None else part.sha256, []).append(name)
    return groups


def _tell(artifact: Artifact) -> str:
    part = artifact.manifest.samples.evaluation
    return "packed inputs alone" if part is None else f"{part.count} samples of {part.path}"


def _warn(artifacts: Mapping[str, Artifact], groups: Mapping[str | None, list[str]]) -> str:
    parts = "; ".join(f"{', '.join(names)} on {_tell(artifacts[names[0]])}" for names in groups.values())
    return (
        f"Accuracy and agreement of these artifacts were proved on different samples and do not compare: {parts}. "
        "Build them on the same ones, or give labelled ones here: --samples FILE.npz counts all right answers on them."
    )
