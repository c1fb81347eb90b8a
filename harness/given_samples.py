"""Samples that commands are given, made into sample files: what does not name the inputs waits for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.process.child import run_in_child
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.pictures import Pictures, read_pictures
from modelwright.core.records.signature import Signature
from modelwright.core.records.texts import read_texts
from modelwright.core.samples.materialize import is_random, materialize_samples
from modelwright.core.samples.pictures.folder import CLASSES_FILE, holds_pictures
from modelwright.core.samples.pictures.folders import Made, explain_pictures, require_same_classes
from modelwright.core.samples.python_source import is_python
from modelwright.core.samples.sample_set import SampleRef
from modelwright.core.samples.source import Named, SampleSource, SignatureNeededError, TextReader, as_source
from modelwright.core.samples.texts.rows import is_text_file
from modelwright.exporters.cache import hash_samples
from modelwright.exporters.exporting import find_or_export
from modelwright.exporters.source import parse_source
from modelwright.exporters.transformers.source import describe_inputs
from modelwright.harness.progress import Progress
from modelwright.targets.building.evidence import EVALUATION_LIMIT

_PARTS = 2
"""Where one folder of pictures calibrates and judges, half of them judge."""


def add_reader(source: str | Path, samples: Named, evaluation: Named | None) -> tuple[Named, Named | None]:
    """Returns samples with what reads texts, where the source is a model that takes some.

    Raises:
        BadInputError: The source cannot be used.
    """
    texts = tuple(str(each) for each in (samples, evaluation) if each is not None and is_text_file(str(each)))
    parsed = parse_source(source) if texts else None
    if parsed is None or parsed.kind != "transformers":
        return samples, evaluation
    reader = TextReader(folder=parsed.folder, model=describe_inputs(parsed.folder), beside=texts)
    return _read_by(reader, samples), None if evaluation is None else _read_by(reader, evaluation)


def _read_by(reader: TextReader, samples: Named) -> Named:
    return replace(as_source(samples), reader=reader) if is_text_file(str(samples)) else samples


def explain_made(first: Made, judging: Made) -> list[str]:
    """Returns what the user is to know of pictures and texts that became samples, a sentence each.

    Args:
        first: What calibrates: what the user calls it, and the folder that it was made into.
        judging: What judges; it may be the same.

    Raises:
        BadInputError: Their labels do not mean the same.
    """
    found = [
        sentence
        for name, path in dict.fromkeys((first, judging))
        if path is not None and (texts := read_texts(path)) is not None
        for sentence in texts.tell(name)
    ]
    return [*explain_pictures(first, judging), *found]


def read_samples(
    spec: Named | None,
    signature: Signature | None,
    folder: str,
    *,
    stored: dict[str, Path],
    scratch: Path,
    limit: int,
    say: Callable[[str], None],
) -> Path | None:
    """Returns the file of samples, if there are any; None for what has to wait for the model's signature.

    Args:
        spec: The samples; None for none.
        signature: Of the model, where it is known already.
        folder: Name of the folder in `scratch` that they are stored in.
        stored: Files that were made already, by `folder`; this one is added.
        scratch: A folder.
        limit: Samples that judge, at most.
        say: Takes what is going on.
    """
    if spec is None:
        return None
    most = _PARTS * max(EVALUATION_LIMIT, limit)
    if folder in stored and as_source(spec).reader is not None:
        _require_same_tokens(spec, stored[folder], scratch / folder, most, say)
    try:
        if folder not in stored:
            stored[folder] = materialize_samples(spec, signature, scratch / folder, most=most, progress=say)
    except SignatureNeededError:
        if signature is not None:
            raise
        return None
    return stored[folder]


def _require_same_tokens(spec: Named, made: Path, folder: Path, most: int, say: Callable[[str], None]) -> None:
    """Refuses texts that another model of the comparison reads as other tokens than the first one, which made them.

    Raises:
        BadInputError: They differ.
    """
    if not folder.exists():
        materialize_samples(spec, None, folder, most=most, progress=say)
    if folder != made and hash_samples(SampleRef(path=folder)) != hash_samples(SampleRef(path=made)):
        raise BadInputError(
            f"{spec}: the models read these texts as different tokens, and are compared on the same inputs",
            hint="compare each by itself; the accuracies of the two can be held against each other then",
        )


def place_for_export(
    source: str | Path, samples: Named, scratch: Path, say: Callable[[str], None], *, fresh: bool, trust: bool
) -> Path:
    """Returns the sample file that an export is compared on.

    Raises:
        SignatureNeededError: It is noise: what is compared on that says little.
    """
    folder = scratch / "samples"
    samples, _ = add_reader(source, samples, None)
    try:
        return materialize_samples(samples, None, folder, progress=say)
    except SignatureNeededError:
        if is_random(str(samples)):
            raise
        signature = export_alone(source, scratch, say, fresh=fresh, trust=trust).signature
        return materialize_samples(samples, signature, folder, progress=say)


def export_alone(
    source: str | Path, scratch: Path, say: Callable[[str], None], *, fresh: bool, trust: bool
) -> ExportedModel:
    """Exports a source without samples, for what it says of its inputs."""
    return find_or_export(source, scratch / "signature" / "model.onnx", fresh=fresh, trust=trust, progress=say).model


def place_samples(samples: Named, artifact: Artifact, scratch: Path, tell: Progress) -> SampleRef:
    """Returns the sample file that `measure` is given: pictures become inputs as they did for the artifact.

    Raises:
        BadInputError: The samples cannot be used, do not fit the artifact, or have other classes.
    """
    signature, known = artifact.manifest.signature, artifact.manifest.samples.pictures or None
    source = as_source(samples)
    if known is not None:
        source = _say_as_known(source, known, scratch)
    texts = artifact.manifest.samples.texts or None
    if texts is not None:
        reader = TextReader(folder=artifact.directory, model=texts.model, length=texts.length)
        source = as_source(_read_by(reader, source))
    path = materialize_samples(source, signature, scratch / "samples", progress=lambda text: tell.say("samples", text))
    for sentence in explain_made((source.text, path), (source.text, None)):
        tell.finish("samples", sentence)
    made = read_pictures(path)
    if made is not None and known is not None:
        require_same_classes(known.classes, made.classes, ("the artifact's samples", source.text))
        if made.preprocess != known.preprocess:
            tell.finish(
                "pictures",
                f"the artifact was made with --preprocess {known.preprocess.describe()}: this differs",
                ok=False,
            )
    ref = SampleRef(path=path, part="evaluation", holds_evaluation=False)
    run_in_child(
        "modelwright.harness.run.worker:check_samples_in_child",
        {"samples": encode(ref), "signature": encode(signature)},
        purpose=f"reading {source.text}",
        crash_error=BadInputError,
    )
    return ref


def _say_as_known(source: SampleSource, known: Pictures, scratch: Path) -> SampleSource:
    """Returns samples with what the artifact's were made by, where the user said nothing else."""
    folder = Path(source.text)
    is_folder = holds_pictures(folder)
    if source.preprocess is None and (is_folder or is_python(source.text)):
        source = replace(source, preprocess=known.preprocess.describe())
    if source.labels is None and is_folder and known.classes is not None:
        order = scratch / CLASSES_FILE
        order.write_text("\n".join(known.classes), encoding="utf-8")
        source = replace(source, labels=str(order))
    return source
