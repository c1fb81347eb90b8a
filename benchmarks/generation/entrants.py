"""What generates: an artifact, the runtime that runs it and where, and who made it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contest.entrants import OURS

from modelwright.core.records.language_artifact import LanguageArtifact
from modelwright.targets.language.table import get_target

BITS = {"fp32": 32, "bf16": 16, "int8-weights": 8, "int8-dynamic": 8, "int4-weights": 4}
"""Precision of a target of ours -> bits of its weights."""
BESIDE = (
    "tokenizer", "special_tokens", "openvino_tokenizer", "openvino_detokenizer", "chat_template", "generation_config",
    "prompts", "artifact",
)  # fmt: skip
"""Beginnings of names of files that are no part of a model: they say how text becomes tokens, or tell of the rest."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An artifact that takes part.

    Attributes:
        name: Unique among those of a model.
        maker: `modelwright`, or the peer.
        runtime: A module of `runtimes`.
        bits: Of most weights: artifacts of the same are held against each other.
        path: The file or the folder that is loaded.
        python: Of the environment that it runs in.
        identity: Changes when the artifact does.
        settings: Of the runtime, beside the threads.
        size_bytes: Of what the runtime loads; None where there is no file of its own.
        build_s: Seconds that making it took, on a machine that did other things too; None where it is made as it loads.
        note: What else is to be known of its figures; empty for nothing.
    """

    name: str
    maker: str
    runtime: str
    bits: int
    path: Path
    python: Path
    identity: str
    settings: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None
    build_s: float | None
    note: str = ""


def enter_own(artifacts: Mapping[str, LanguageArtifact]) -> Iterable[Entrant]:
    """Yields our artifacts."""
    for name, artifact in artifacts.items():
        yield Entrant(
            name=name,
            maker=OURS,
            runtime="modelwright",
            bits=BITS[get_target(name).record.precision],
            path=artifact.directory,
            python=Path(sys.executable),
            identity=artifact.seal,
            size_bytes=measure_model(artifact.directory),
            build_s=artifact.manifest.build_s,
        )


def measure_model(path: Path) -> int:
    """Returns the bytes of a model's file, or of those of its folder that are the model."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if not file.name.startswith(BESIDE))
