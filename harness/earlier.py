"""Whether what an earlier run measured still holds: the same files, run in the same way on the same machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, hash_json, write_json
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.artifact_files import REFERENCE
from modelwright.core.records.codec import Record, Sha256, encode, read_record
from modelwright.harness.request import Request
from modelwright.harness.results.assemble import describe_environment
from modelwright.harness.results.file import read_results
from modelwright.harness.results.record import Comparison
from modelwright.profiles.power import power_on

RESULTS = "results.json"
MARK = "measured.json"


class _Mark(Record):
    """What `MARK` holds.

    Attributes:
        key: Hash of all that decides the measurement.
        results_sha256: Of the results.json that it is in.
    """

    schema: Literal[1] = 1
    key: Sha256
    results_sha256: Sha256


def hash_measured(request: Request, artifacts: Mapping[str, Artifact]) -> str:
    """Returns a hash of all that decides what is measured: files, settings, machine and versions.

    How the artifacts were judged, the limits and the grid are not in it: they are applied to the figures afterwards.
    """
    environment, settings = describe_environment(request.host), request.settings
    return hash_json(
        {
            "artifacts": {name: _describe(artifact) for name, artifact in artifacts.items()},
            "settings": dataclasses.asdict(settings),
            "baseline": request.baseline,
            "profile": request.profile.name,
            "power": encode(power_on(request.profile, request.host)),
            "cores": request.profile.cores,
            "host": encode(request.host.machine()),
            "cpu": environment.cpu_model,
            "meters": list(environment.meters),
            "system": environment.os,
            "python": environment.python,
            "versions": environment.versions,
        }
    )


def _describe(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "target": manifest.target,
        "files": {name: sha256 for name, sha256 in manifest.files.items() if name != REFERENCE},
        "recipe": dict(manifest.recipe),
        "tuned": repr(manifest.tuned),
    }


class EarlierRun:
    """What was measured in a folder before.

    Args:
        folder: Of the comparison.
        again: Whether everything is to be measured again whatever is there.
    """

    def __init__(self, folder: Path, *, again: bool) -> None:
        self._folder = folder
        self._again = again

    def find(self, key: str) -> Comparison | None:
        """Returns the comparison whose figures still hold; None where there is none, or it was edited."""
        path, results = self._folder / MARK, self._folder / RESULTS
        if self._again or not path.is_file() or not results.is_file():
            return None
        try:
            mark = read_record(_Mark, path, what="the mark of a measurement")
            if mark.key != key or mark.results_sha256 != hash_file(results):
                return None
            return read_results(results)
        except BadInputError:
            return None  # damaged, or of another version: measured again

    def keep(self, key: str) -> None:
        """Says what the results.json that was just written is of."""
        mark = _Mark(key=key, results_sha256=hash_file(self._folder / RESULTS))
        write_json(self._folder / MARK, encode(mark))
