"""The models of a study: found, or made by compressing another one; what has not changed is not made again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from modelwright.compression import Settings, compress
from modelwright.compression.compressing import ROW_LIMIT
from modelwright.compression.methods import parse_methods
from modelwright.compression.settings import LOSSES, check_settings, parse_budget
from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.core.faults import as_error
from modelwright.core.records.codec import decode, encode
from modelwright.core.samples.functions import materialize_function
from modelwright.core.samples.python_source import is_python, split_function
from modelwright.core.samples.source import SampleSource, SignatureNeededError, add_preprocessing
from modelwright.core.scratch import scratch_directory
from modelwright.exporters.source import parse_source
from modelwright.harness.progress import Progress
from modelwright.harness.study.file import StudyFile, TrainingTable, suggest_variant
from modelwright.harness.study.places import locate, locate_labels, named
from modelwright.harness.variants import FOLDER, Subject, in_name_of

SOURCES = "sources"
"""Holds the models that were compressed, a folder each."""
_DISTIL = "distil:"
_DATA = ("data", "judge")


class Sources:
    """What a study's file says of its models, with paths as seen from here.

    Args:
        study: The file.
        path: Of the file, which its paths are relative to.
        folder: Of the study's results.

    Raises:
        BadInputError: A source is not there, or methods make no sense; names the table and the key.
    """

    def __init__(self, study: StudyFile, path: Path, folder: Path) -> None:
        self._study, self._path, self._folder = study, path, folder
        for name in study.variants:
            self._check(name)

    def list_subjects(self) -> list[Subject]:
        """Returns the variants as a comparison takes them, in the order of the file."""
        return [
            Subject(source=self._find(name), name=name, place=Path(FOLDER) / name, targets=variant.targets)
            for name, variant in self._study.variants.items()
        ]

    def make(self, tell: Progress, *, trust: bool) -> dict[str, ModelwrightError]:
        """Compresses what is to be compressed; returns why variants are missing, by their names."""
        lost: dict[str, ModelwrightError] = {}
        with scratch_directory(self._folder) as scratch:
            stored: dict[str, str] = {}
            for name, variant in self._study.variants.items():
                try:
                    with in_name_of(name):
                        if variant.source in lost:
                            raise BuildFailedError(
                                f"it is made of {variant.source}, which is missing",
                                hint=f"see to {variant.source} first",
                            )
                        if variant.methods:
                            self._compress(name, Path(scratch), stored, tell, trust=trust)
                except Exception as error:  # whatever it is, the other variants are made and compared
                    lost[name] = as_error(error, f"making {name}")
                    tell.finish(f"compress:{name}", lost[name].message, ok=False)
        return lost

    def _compress(self, name: str, scratch: Path, stored: dict[str, str], tell: Progress, *, trust: bool) -> None:
        variant, training = self._study.variants[name], self._training(name)
        task = f"compress:{name}"
        tell.start(task, f"making {name}: {' '.join(variant.methods)}")
        train, judge = self._place_data(training, scratch, stored, lambda text: tell.say(task, text))
        assert train is not None

        def say(text: str) -> None:
            if text.startswith("* "):
                tell.finish(f"epoch:{name}", f"{name}: {text.removeprefix('* ')}")
            else:
                tell.say(task, text)

        made = compress(
            self._find_origin(name),
            self._methods(name),
            train=train,
            evaluation=judge,
            out=self._folder / SOURCES / name,
            settings=_read_settings(training),
            renew=True,
            trust=trust,
            progress=say,
        )
        quality = f"{made.record.quality_before.describe()} to {made.record.quality_after.describe()}"
        tell.finish(task, f"{name}: {'unchanged' if made.reused else quality}")

    def _place_data(
        self, training: TrainingTable, scratch: Path, stored: dict[str, str], say: Callable[[str], None]
    ) -> list[SampleSource | None]:
        """Returns what trains and what judges; what functions yield is stored once for all variants.

        A simulation may take longer than the training. Pictures are left: how they are read, the model decides.
        """
        texts, samples = [training.data, training.judge], self._study.samples
        if samples.preprocess is not None:
            with_pictures = any(text and (is_python(text) or Path(text).is_dir()) for text in texts)
            labels = locate_labels(samples.labels, self._path)
            return add_preprocessing(texts, *((samples.preprocess, labels) if with_pictures else (None, None)))
        for spec in texts:
            if spec is not None and spec not in stored and is_python(spec):
                path, function = split_function(spec)
                # The name is the same in every run: it is part of what is cached. Files in two folders may share it.
                folder = scratch / str(len(stored)) / f"{path.stem}.{function}"
                with contextlib.suppress(SignatureNeededError):
                    stored[spec] = str(materialize_function(spec, folder, limit=ROW_LIMIT, batched=True, progress=say))
        return add_preprocessing([text and stored.get(text, text) for text in texts], None, None)

    def _check(self, name: str) -> None:
        """Checks all of a variant that can be known without running anything."""
        variant, key = self._study.variants[name], f"study {self._path}: variants.{name}"
        if variant.source not in self._study.variants:
            with named(f"{key}.source", suggest_variant(variant.source, self._study)):
                parse_source(self._find_origin(name))
        if variant.methods:
            training = self._training(name)
            with named(f"{key}.methods"):
                parse_methods(self._methods(name))
            with named(f"{key}.training"):
                check_settings(_read_settings(training), is_judged=training.judge is not None)

    def _find(self, name: str) -> Path | str:
        """Returns where a variant's model lies, or will."""
        return self._folder / SOURCES / name if self._study.variants[name].methods else self._find_origin(name)

    def _find_origin(self, name: str) -> Path | str:
        """Returns what a variant is made of."""
        source = self._study.variants[name].source
        return self._find(source) if source in self._study.variants else locate(source, self._path)

    def _methods(self, name: str) -> list[str]:
        return [
            _DISTIL + locate(method.removeprefix(_DISTIL), self._path) if method.startswith(_DISTIL) else method
            for method in self._study.variants[name].methods
        ]

    def _training(self, name: str) -> TrainingTable:
        """Returns how a variant trains: its own words, else those for all."""
        own, shared = self._study.variants[name].training, self._study.training
        values = {key: value for table in (shared, own) for key, value in encode(table).items() if value is not None}
        for key in (*_DATA, "loss", "augment"):
            if key in values and values[key] not in LOSSES:
                values[key] = locate(values[key], self._path)
        return decode(TrainingTable, values)


def _read_settings(training: TrainingTable) -> Settings:
    """Returns hyper-parameters, with the defaults of `compress` for what is not said."""
    values = {key: value for key, value in encode(training).items() if value is not None and key not in _DATA}
    return decode(Settings, {"budget_s": parse_budget(values.pop("budget", None)), **values})
