"""Several models in one comparison: variants of the first one, which all of them are held against."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import BadInputError, LimitNotMetError, ModelwrightError, UsageError
from modelwright.core.faults import as_error
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.exporters.exporting import Export
from modelwright.harness.building import Built
from modelwright.harness.progress import Progress
from modelwright.harness.results.assemble import Absent, name_row
from modelwright.harness.results.record import Source, Variant
from modelwright.targets.building.against import hold_against
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.graphs.work import count_macs

FOLDER = "variants"
"""Holds what is built from all models but the first."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is to be compared.

    Attributes:
        source: As `compare` takes it.
        name: Of it among several; None for the only one.
        place: Where its model and its artifacts go, in the comparison's folder.
        targets: Of this model; None for those of all.
    """

    source: str | Path
    name: str | None = None
    place: Path = Path()
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model that is ready to be built.

    Attributes:
        name: Of it among several; None for the only one.
        folder: Where its model and its artifacts go.
        export: The verified model.
        evidence: The samples, with this model's answers to them.
    """

    name: str | None
    folder: Path
    export: Export
    evidence: Evidence

    @property
    def model(self) -> ExportedModel:
        return self.export.model

    def describe_source(self) -> Source:
        """Returns what results say of the model."""
        return Source(**encode(self.model.describe_source()), **self.export.describe())


def name_variants(sources: Sequence[str | Path]) -> list[str | None]:
    """Returns a short name for each of several sources, by its path: `student` of `nets/student.py:create`.

    Raises:
        UsageError: There is none, or one is given twice.
    """
    if not sources:
        raise UsageError("no model was given", hint="give SOURCE: model.onnx, model.pt2 or file.py:factory")
    texts = [str(source) for source in sources]
    places = list(map(_locate, texts))
    again = next((texts[number] for number, place in enumerate(places) if place in places[:number]), None)
    if again is not None:
        raise UsageError(f"{again} is given twice", hint="give each model once")
    if len(texts) == 1:
        return [None]
    names: list[str | None] = []
    for text in texts:
        path, _, function = text.rpartition(":") if ".py:" in text else (text, "", "")
        alike = [other for other in texts if other.rpartition(":")[0] == path] if function else []
        wanted = re.sub(r"[^\w.-]", "_", function if len(alike) > 1 else _name_path(Path(path))) or "model"
        free = (f"{wanted}-{number}" if number > 1 else wanted for number in itertools.count(1))
        names.append(next(name for name in free if name not in names))
    return names


def _locate(text: str) -> str:
    """Returns where a source lies, so that `net.onnx` and `./net.onnx` are the same."""
    path, colon, function = text.rpartition(":") if ".py:" in text else (text, "", "")
    return f"{os.path.realpath(path)}{colon}{function}"


def _name_path(path: Path) -> str:
    """Returns the name of a file without its ending, or of a folder, which has none: `prune-0.5` is no kind of file."""
    named = path if path.name.strip(".") else path.resolve()  # `..` would lead out of the folder that is named so
    return named.name if named.is_dir() else named.stem


def name_subjects(sources: Sequence[str | Path]) -> list[Subject]:
    """Returns sources with their names and places: the first one's is the folder itself."""
    names = name_variants(sources)
    places = [Path(FOLDER) / str(name) if number else Path() for number, name in enumerate(names)]
    return [
        Subject(source=source, name=name, place=place)
        for source, name, place in zip(sources, names, places, strict=True)
    ]


@contextlib.contextmanager
def in_name_of(variant: str | None) -> Iterator[None]:
    """Says of which of several models an error is."""
    try:
        yield
    except ModelwrightError as error:
        if variant is not None:
            error.message = f"{variant}: {error.message}"
        raise


def require_alike(first: Prepared, model: ExportedModel) -> None:
    """Refuses a model that the first one's samples do not fit, or whose answers cannot be held against the first's.

    Raises:
        BadInputError: Names the inputs or outputs that differ.
    """
    for what in ("inputs", "outputs"):
        mine, its = _describe(model.signature, what), _describe(first.model.signature, what)
        others = [tensor for tensor in its | mine if mine.get(tensor) != its.get(tensor)]
        if others:
            told = "; ".join(
                f"{each} is {its.get(each, 'none')} there and {mine.get(each, 'none')} here" for each in others
            )
            raise BadInputError(
                f"it cannot be compared with {first.name}, whose {what} are others: {told}",
                hint="export them with the same names, types and shapes, or compare them in calls of their own",
            )


def _describe(signature: Signature, what: str) -> dict[str, str]:
    specs: Sequence[TensorSpec] = getattr(signature, what)
    described = {}
    for spec in specs:
        # What a dimension that varies is called says nothing of what fits it.
        shape = None if spec.shape is None else [size if isinstance(size, int) else "any" for size in spec.shape]
        described[spec.name] = f"{spec.dtype} {shape}"
    return described


def describe_variants(prepared: Sequence[Prepared], scratch: Path) -> list[Variant]:
    """Returns what results say of several models; nothing of the only one."""
    return [
        Variant(
            name=each.name,
            source=each.describe_source(),
            macs=count_macs(each.model.model_path, each.evidence.evaluation, each.model.signature, scratch),
        )
        for each in prepared
        if each.name is not None
    ]


def hold_all_against(
    first: Prepared, other: Prepared, built: Built, host: Machine, threads: int, tell: Progress
) -> Built:
    """Returns what was built of a variant, held against the first model's answers; what loses too much is absent."""
    held = Built(reused=built.reused, absent=list(built.absent))
    for target, artifact in built.artifacts.items():
        task = f"hold:{other.name}:{target}"
        tell.start(task, f"holding {other.name}'s {target} against {first.name}")
        try:
            held.artifacts[target] = hold_against(
                artifact, other.model, first.evidence, host, threads, functools.partial(tell.say, task)
            )
        except Exception as error:  # whatever it is, the others are held
            fault = as_error(error, f"holding {target} against {first.name}")
            if isinstance(fault, LimitNotMetError):
                fault.hint = f"train {other.name} further, or allow more with --max-drop"
            held.absent.append(Absent(target=target, status="failed", error=fault))
            tell.finish(task, f"{name_row(other.name, target)}: {fault.message}", ok=False)
        else:
            tell.finish(task, f"{name_row(other.name, target)}: held against {first.name}")
    return held


def explain_variants(prepared: Sequence[Prepared]) -> list[str]:
    """Returns what to know of a comparison of several models, and the notes of each."""
    first, *others = prepared
    notes = [note if each.name is None else f"{each.name}: {note}" for each in prepared for note in each.model.notes]
    if not others:
        return notes
    return [f"Agreement, and what is lost, is against FP32 of {first.name}, the first of the models.", *notes]


def join_built(parts: Mapping[str | None, Built]) -> Built:
    """Returns what was built of all models, by the names of rows."""
    joined = Built()
    for variant, built in parts.items():
        joined.artifacts |= {name_row(variant, name): artifact for name, artifact in built.artifacts.items()}
        joined.reused |= {name_row(variant, name): reused for name, reused in built.reused.items()}
        joined.absent += [
            Absent(target=absent.target, status=absent.status, error=absent.error, variant=variant)
            for absent in built.absent
        ]
    return joined
