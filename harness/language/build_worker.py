"""The child side of building language artifacts: what a target makes, and what of FP32's writing it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.core.files import read_json
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.language import LanguageModel
from modelwright.harness.language.judging import judge, take_reference
from modelwright.harness.language.workload import Workload
from modelwright.targets.building.proof_files import require_unchanged
from modelwright.targets.language.contract import LanguageBuildRequest, Tokens
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings


def read_workload(path: Path) -> Workload:
    """Reads what `tokenizing` wrote."""
    return decode(Workload, read_json(path, "the tokens of a comparison"), where=str(path))


def build_in_child(
    target: str,
    model: str,
    record: dict[str, Any],
    source: str,
    directory: str,
    workload: str,
    threads: int,
    options: dict[str, Any],
    limit: float | None,
    scratch: str,
    shared: str,
    progress: Progress,
) -> dict[str, Any]:
    """Runs a target's own code; returns its `LanguageBuildResult` as JSON values."""
    tokens = read_workload(Path(workload))
    result = get_target(target).build(
        LanguageBuildRequest(
            model=Path(model),
            record=decode(LanguageModel, record),
            source=Path(source),
            directory=Path(directory),
            calibration=_as_rows(tokens.calibration),
            tuning=_as_rows(tokens.tuning),
            scratch=Path(scratch),
            shared=Path(shared),
            progress=progress,
            threads=threads,
            options=options,
            max_perplexity_increase=limit,
        )
    )
    return {
        "model_file": result.model_file,
        "recipe": dict(result.recipe),
        "requires": dict(result.requires),
        "versions": dict(result.versions),
        "notes": list(result.notes),
    }


def judge_in_child(
    target: str,
    directory: str,
    files: dict[str, str],
    model_file: str,
    recipe: dict[str, Any],
    record: dict[str, Any],
    workload: str,
    reference: str,
    threads: int,
    is_reference: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Loads an artifact and holds what it writes against FP32's.

    Args:
        target: Its target.
        directory: Its folder, whose files are hashed before they are loaded and again afterwards.
        files: Their hashes.
        model_file: That the target loads.
        recipe: The manifest's.
        record: Of the FP32 model.
        workload: File with the tokens.
        reference: Folder for what FP32 made of them.
        threads: To run with.
        is_reference: Whether this artifact is that FP32; then the folder is written first.
        progress: Takes lines.

    Returns:
        A `Judgement` as JSON values.

    Raises:
        BuildFailedError: It does not load or run, or its files are not those that were built.
    """
    require_unchanged(target, Path(directory), files)
    progress("loading it")
    model = decode(LanguageModel, record)
    tokens = read_workload(Path(workload))
    try:
        with get_target(target).load(
            Path(directory), model_file, recipe, model, RunSettings(threads=threads)
        ) as generator:
            hold = take_reference if is_reference else judge
            found = hold(generator, tokens, model.context_length, Path(reference), progress)
    except ModelwrightError:
        raise
    except Exception as error:
        raise BuildFailedError(
            f"{target} was built, but its runtime cannot run it",
            hint="leave this target out, or report it with the lines above",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    require_unchanged(target, Path(directory), files)
    told = encode(found)
    assert isinstance(told, dict)
    return told


def _as_rows(rows: tuple[tuple[int, ...], ...]) -> Tokens | None:
    return np.asarray(rows, dtype=np.int64) if rows else None
