"""What all artifacts of one language model are built from and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import LanguageArtifact
from modelwright.core.records.machine import Machine
from modelwright.harness.language.workload import Workload
from modelwright.targets.readiness import Readiness

WORKER = "modelwright.harness.language.build_worker"
TIMEOUT_S = 6 * 3600.0
"""Of a child that builds or judges."""


@dataclass(kw_only=True)
class Bench:
    """What all artifacts of one model are built from and judged by.

    Attributes:
        model: Folder of the exported model.
        record: Of it.
        source: The transformers folder that it was exported from.
        workload: All tokens.
        workload_path: The file with them.
        reference: Folder for what FP32 makes of them.
        reference_target: Target whose artifact is that FP32.
        shared: Folder that all builds see.
        machine: That artifacts are for.
        host: This machine.
        threads: To build and judge with.
        limit: What perplexity may grow by at most, as a share; None for no limit.
        options: Target -> option -> value.
        reference_artifact: Of it, once it is there.
        referred: Whether it wrote into `reference`.
    """

    model: Path
    record: LanguageModel
    source: Path
    workload: Workload
    workload_path: Path
    reference: Path
    reference_target: str
    shared: Path
    machine: Machine
    host: Machine
    threads: int
    limit: float | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference_artifact: LanguageArtifact | None = None
    referred: bool = False


def require_ready(name: str, readiness: Readiness) -> None:
    """Refuses a target that this machine cannot build or run.

    Raises:
        ToolchainMissingError: With the reason.
    """
    if not readiness.ok:
        raise ToolchainMissingError(f"{name} cannot be built here: {readiness.reason}", hint=readiness.hint)
