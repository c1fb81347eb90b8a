"""An artifact of ours, loaded and decoded as `modelwright compare` does."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from generation.greedy import Answer, Logits, Prompt

from modelwright.core.records.language_artifact import open_language_artifact
from modelwright.harness.language.generating import generate
from modelwright.targets.language.contract import Generator
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings


class _Loaded:
    def __init__(self, generator: Generator, stack: contextlib.ExitStack) -> None:
        self._generator, self._stack = generator, stack

    def generate(self, prompt: Prompt, count: int) -> Answer:
        found = generate(self._generator, [prompt], count)
        return Answer(tokens=found.tokens[0].tolist(), first_ns=found.first_ns, step_ns=found.step_ns)

    def score(self, tokens: Prompt) -> Logits:
        logits: Logits = self._generator.score(np.asarray([tokens], np.int64))[0]
        return logits


def load(spec: Mapping[str, Any]) -> _Loaded:
    """Loads the artifact, which stays so until the process ends."""
    artifact = open_language_artifact(Path(spec["file"]))
    manifest = artifact.manifest
    stack = contextlib.ExitStack()
    generator = stack.enter_context(
        get_target(manifest.target).load(
            artifact.directory, manifest.model_file, manifest.recipe, manifest.model,
            RunSettings(threads=spec["threads"], options={}),
        )
    )  # fmt: skip
    return _Loaded(generator, stack)
