"""Where what a study names lies: its paths are relative to the folder of its file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.samples.materialize import is_random
from modelwright.core.samples.pictures.folder import NO_LABELS
from modelwright.core.samples.pictures.wishes import parse_wishes
from modelwright.core.samples.python_source import is_python, require_function, split_function
from modelwright.exporters.hub import is_hub_name
from modelwright.harness.fetching import fetch_named
from modelwright.harness.progress import Progress
from modelwright.harness.study.file import StudyFile, TrainingTable, suggest_variant


def locate(text: str, study: Path) -> str:
    """Returns a path, `file.py:function` or other data of a study as seen from here; noise has no place."""
    return text if is_random(text) else str(study.parent / text)


def locate_labels(text: str | None, study: Path) -> str | None:
    """Returns where the names of classes stand; `none` says that folders are no classes."""
    return text if text is None or text == NO_LABELS else locate(text, study)


def require_there(study: StudyFile, path: Path) -> None:
    """Refuses samples, data and functions that are not there, before hours are spent on what comes first.

    What is done to pictures is read for the same reason.

    Raises:
        BadInputError: Names the key, and where it was looked for.
    """
    if study.samples.preprocess is not None:
        with named(f"study {path}: samples.preprocess"):
            parse_wishes(study.samples.preprocess)
    for key, text in _list_places(study, path):
        place = locate(text, path)
        with named(f"study {path}: {key}"):
            if not split_function(place)[0].exists():
                raise BadInputError(
                    f"there is no {split_function(place)[0]}",
                    hint=f"paths are relative to the study's folder, {path.parent}",
                )
            if is_python(place):
                require_function(place, "is wanted")


def fetch_models(study: StudyFile, path: Path, tell: Progress, *, trust: bool) -> StudyFile:
    """Returns a study whose models of a hub are folders that lie here.

    Args:
        study: As it was read.
        path: Of its file.
        tell: Told what is going on.
        trust: Fetch pickled weights where there are no others.

    Raises:
        BadInputError: One cannot be had; names the key.
    """
    variants = dict(study.variants)
    for name, variant in study.variants.items():
        if _is_of_hub(variant.source, study, path):
            with named(f"study {path}: variants.{name}.source", suggest_variant(variant.source, study)):
                variants[name] = replace(variant, source=fetch_named(variant.source, trust=trust, progress=tell))
    return replace(study, variants=variants)


def _is_of_hub(source: str, study: StudyFile, path: Path) -> bool:
    return source not in study.variants and is_hub_name(source, path.parent)


def _list_places(study: StudyFile, path: Path) -> Iterator[tuple[str, str]]:
    """Yields the keys of a study that name a file or folder, and what they say."""
    samples = study.samples
    given = {
        "samples.calibrate": samples.calibrate,
        "samples.judge": samples.judge,
        "samples.labels": None if samples.labels == NO_LABELS else samples.labels,
        "limits.metric": study.limits.metric,
        "measure.profile": study.measure.profile if study.measure.profile.endswith(".toml") else None,
        **_list_training("training", study.training),
    }
    for name, variant in study.variants.items():
        given |= _list_training(f"variants.{name}.training", variant.training)
        if _is_path(variant.source, study) and not _is_of_hub(variant.source, study, path):
            given[f"variants.{name}.source"] = variant.source
    yield from ((key, text) for key, text in given.items() if text is not None and not is_random(text))


def _is_path(source: str, study: StudyFile) -> bool:
    """Whether a source is a file rather than the name of a variant, mistyped perhaps."""
    return source not in study.variants and (is_python(source) or "/" in source or bool(Path(source).suffix))


def _list_training(table: str, training: TrainingTable) -> dict[str, str | None]:
    loss = training.loss if training.loss is not None and is_python(training.loss) else None
    return {
        f"{table}.data": training.data,
        f"{table}.judge": training.judge,
        f"{table}.loss": loss,
        f"{table}.augment": training.augment,
    }


@contextlib.contextmanager
def named(key: str, question: str = "") -> Iterator[None]:
    """Says in which key of the file an error lies."""
    try:
        yield
    except ModelwrightError as error:
        raise BadInputError(
            f"{key}: {error.message}", hint=" ".join(filter(None, (question, error.hint))), detail=error.detail
        ) from error
