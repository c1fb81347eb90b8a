"""The child side of measuring an artifact that generates: loaded in a process of its own, one generation a turn.

Prompts come as tokens and leave as tokens: no text is tokenized here, and nothing of it is timed.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.records.codec import encode, read_record
from modelwright.core.records.language_artifact import (
    LanguageArtifact,
    PromptSet,
    open_language_artifact,
    verify_language_files,
)
from modelwright.harness.language.generating import generate
from modelwright.harness.run.memory import read_peak_bytes, read_private_bytes
from modelwright.harness.run.told import Executed
from modelwright.harness.run.worker import import_runtime
from modelwright.targets.language.contract import Generator
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings, Value

_WARM_UP_TOKENS = 2


@dataclass
class _Loaded:
    """What stays between the parent's calls."""

    artifact: LanguageArtifact | None = None
    generator: Generator | None = None
    prompts: Sequence[Sequence[int]] = ()
    openings: Sequence[Sequence[int]] = ()
    new_tokens: int = 0
    batch: int = 1
    cache_bytes: int | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def prompt(self, turn: int) -> Sequence[int]:
        return self.prompts[turn % len(self.prompts)]


loaded = _Loaded()


def open_in_child(directory: str, prompts: str, threads: int, batch: int, options: dict[str, Value]) -> dict[str, Any]:
    """Loads an artifact and generates once.

    Args:
        directory: The artifact's folder; its files are hashed here, before they are loaded and again afterwards.
        prompts: File with a `PromptSet`.
        threads: Intra-operator threads.
        batch: Prompts at once in the offline part of a turn; 1 for none.
        options: Settings of the runtime that are not to be at their defaults.

    Returns:
        `seal` of what was loaded, `import_ms`, `load_ms`, `first_generation_ms`, and `runtime_bytes`: private memory
        with the runtime imported and nothing loaded; None where the system does not tell.

    Raises:
        BadInputError: Its files are not those of its manifest.
        MeasurementInvalidError: It cannot run.
        ToolchainMissingError: The runtime is absent or broken.
    """
    artifact = open_language_artifact(Path(directory))
    verify_language_files(artifact)
    asked = read_record(PromptSet, Path(prompts), what="the prompts of a measurement")
    manifest = artifact.manifest
    target = get_target(manifest.target)
    started = time.perf_counter()
    import_runtime(target.record.run_packages)
    import_ms = _elapsed_ms(started)
    runtime_bytes = read_private_bytes(artifact.directory)
    loaded.artifact, loaded.batch, loaded.new_tokens = artifact, batch, asked.new_tokens
    loaded.prompts, loaded.openings = asked.prompts, asked.openings
    with _explaining(artifact):
        started = time.perf_counter()
        loaded.generator = loaded.stack.enter_context(
            target.load(
                artifact.directory,
                manifest.model_file,
                manifest.recipe,
                manifest.model,
                RunSettings(threads=threads, options=options),
            )
        )
        load_ms = _elapsed_ms(started)
        started = time.perf_counter()
        generate(loaded.generator, [loaded.prompt(0)], asked.new_tokens)
        first_ms = _elapsed_ms(started)
        if batch > 1:
            generate(loaded.generator, _take_batch(0), asked.new_tokens)
        for opening in loaded.openings:
            generate(loaded.generator, [opening], 1)
    verify_language_files(artifact)  # what was swapped after the first look may be what was loaded
    gc.collect()
    gc.freeze()
    return {
        "seal": artifact.seal,
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_generation_ms": first_ms,
        "runtime_bytes": runtime_bytes,
    }


def warm_up(turn: int) -> None:
    """Reads the turn's prompt and writes a little, unmeasured: other artifacts ran in between and took the caches."""
    assert loaded.generator is not None
    generate(loaded.generator, [loaded.prompt(turn)], min(_WARM_UP_TOKENS, loaded.new_tokens))


def run_stream(turn: int) -> dict[str, Any]:
    """Answers one prompt alone.

    Returns:
        `prompt_tokens`, `first_ns` (the time to the first token), `step_ns` of each further one, and the `tokens`.
    """
    assert loaded.generator is not None
    assert loaded.artifact is not None
    prompt = loaded.prompt(turn)
    with _explaining(loaded.artifact), _without_collecting():
        found = generate(loaded.generator, [prompt], loaded.new_tokens)
    loaded.cache_bytes = loaded.generator.cache_bytes()
    return {
        "prompt_tokens": len(prompt),
        "first_ns": found.first_ns,
        "step_ns": list(found.step_ns),
        "tokens": found.tokens[0].tolist(),
    }


def run_opening(turn: int) -> dict[str, Any] | None:
    """Times the first token of a prompt of a chosen length, another one each turn; None where there are none."""
    assert loaded.generator is not None
    assert loaded.artifact is not None
    if not loaded.openings:
        return None
    opening = loaded.openings[turn % len(loaded.openings)]
    with _explaining(loaded.artifact), _without_collecting():
        found = generate(loaded.generator, [opening], 1)
    return {"prompt_tokens": len(opening), "first_ns": found.first_ns}


def run_batch(turn: int) -> dict[str, Any]:
    """Answers several prompts at once.

    Returns:
        `total_ns` and `tokens`: how many were generated in all.
    """
    assert loaded.generator is not None
    assert loaded.artifact is not None
    with _explaining(loaded.artifact), _without_collecting():
        found = generate(loaded.generator, _take_batch(turn), loaded.new_tokens)
    return {"total_ns": found.total_ns, "tokens": int(found.tokens.size)}


def finish_in_child() -> dict[str, Any]:
    """Returns the memory at its peak and now, the cache's share, and what really ran, read back from the runtime."""
    assert loaded.generator is not None
    assert loaded.artifact is not None
    peak_bytes, steady_bytes = read_peak_bytes(), read_private_bytes(loaded.artifact.directory)
    try:
        executed = loaded.generator.describe_execution()
    except Exception as error:  # introspection must not cost a measurement that is already taken
        executed = {"precision": None, "reason": f"{type(error).__name__}: {error}"}
    return {
        "peak_memory_bytes": peak_bytes,
        "steady_memory_bytes": steady_bytes,
        "cache_bytes": loaded.cache_bytes,
        "precision_executed": encode(Executed.of(executed)),
    }


def _take_batch(turn: int) -> list[Sequence[int]]:
    first = turn * loaded.batch
    return [loaded.prompt(first + index) for index in range(loaded.batch)]


@contextlib.contextmanager
def _explaining(artifact: LanguageArtifact) -> Iterator[None]:
    """Turns whatever a runtime raises on a file, or on a recipe that came from anywhere, into one error."""
    manifest = artifact.manifest
    try:
        yield
    except ModelwrightError:
        raise
    except Exception as error:
        raise MeasurementInvalidError(
            f"{artifact.directory.name}: {manifest.target} cannot run {manifest.model_file}",
            hint="the file is damaged, or was made for another version of the runtime: build it again",
            detail=f"{type(error).__name__}: {error}",
        ) from error


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keeps the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _elapsed_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
