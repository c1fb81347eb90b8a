"""Artifacts as a search runs them: each configuration in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelwright.core.outputs.fidelity import explain_broken
from modelwright.core.records.artifact import Artifact
from modelwright.harness.meters.host_energy import Meter
from modelwright.harness.run.runner import ArtifactRunner, MeasureSettings
from modelwright.harness.tuning.record import Configuration


@dataclass(frozen=True, kw_only=True)
class Stable:
    """The artifacts of a search, by name, and how all of them are measured.

    Attributes:
        artifacts: Name -> artifact.
        settings: What is the same for all.
        meter: Of energy; None where none is wanted or there.
    """

    artifacts: Mapping[str, Artifact]
    settings: MeasureSettings
    meter: Meter | None = None

    def make(self, configuration: Configuration, name: str) -> ArtifactRunner:
        """Returns a runner that is not loaded yet."""
        artifact = self.artifacts[configuration.artifact]
        settings = dataclasses.replace(
            self.settings,
            threads=configuration.threads,
            requests=configuration.requests,
            options={artifact.manifest.target: configuration.options},
        )
        return ArtifactRunner(name, artifact, settings, meter=self.meter)

    @contextlib.contextmanager
    def open(self, configuration: Configuration, name: str) -> Iterator[ArtifactRunner]:
        """Loads a configuration in a new process."""
        with self.make(configuration, name) as runner:
            runner.open(None)
            yield runner

    def check(self, configuration: Configuration) -> str | None:
        """Says why a configuration's answers to the packed samples are not those that were proved; None if they are."""
        with self.open(configuration, "the answers") as runner:
            proof = runner.prove(None)
        if proof is None or proof.packed is None:
            return None
        fault = explain_broken(proof.packed.fidelity)
        return None if fault is None else f"its answers are not those that were proved: {fault}"
