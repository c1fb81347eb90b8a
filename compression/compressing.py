"""The parent side of a compression: the request, the folder, the child, the limit. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.compression.checkpoint import CHECKPOINT_FOLDER, Checkpoint
from modelwright.compression.methods import parse_methods
from modelwright.compression.settings import Settings, check_settings
from modelwright.core.errors import BadInputError, BuildFailedError, LimitNotMetError
from modelwright.core.files import require_no_other
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.compressed import (
    COMPRESSED_PROGRAM,
    COMPRESSED_WEIGHTS,
    COMPRESSION_RECORD,
    CompressedModel,
    is_compressed_folder,
    load_compressed,
    save_compressed,
)
from modelwright.core.records.signature import Signature
from modelwright.core.samples.functions import materialize_function
from modelwright.core.samples.materialize import is_random, materialize_samples
from modelwright.core.samples.pictures.folders import explain_pictures
from modelwright.core.samples.python_source import is_python, split_function
from modelwright.core.samples.source import Named, SignatureNeededError
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.hub import is_hub_name
from modelwright.exporters.source import Source, parse_source
from modelwright.exporters.transformers.factory import tell_factory

ROW_LIMIT = 1_000_000
"""Samples taken from a function that yields batches: a generator may be endless."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed source.

    Attributes:
        folder: Where it lies; a source like any other.
        record: How it came to be.
        reused: Whether an earlier run made it.
    """

    folder: Path
    record: CompressedModel
    reused: bool


def compress(
    source: str | Path,
    methods: Sequence[str],
    *,
    train: Named,
    out: str | Path,
    evaluation: Named | None = None,
    settings: Settings | None = None,
    overwrite: bool = False,
    renew: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Compressed:
    """Makes a smaller source of a PyTorch source, by one method after the other.

    Training that is interrupted is kept, epoch by epoch, in `out/checkpoint`, and the same call goes on from there.

    Args:
        source: `file.py:factory`, `model.pt2`, or a folder that this function wrote.
        methods: Such as `prune:magnitude:0.3`, in their order.
        train: What trains: a `.npz`, class folders of pictures as a `SampleSource`, or `file.py:function` that yields
            batches or returns a data set; an eighth is held back, to choose among epochs.
        out: The folder to write.
        evaluation: What judges, in the same forms.
        settings: Hyper-parameters.
        overwrite: Replace another result, or another unfinished compression, of this folder.
        renew: Replace them where they are another's, and go on with them where they are this one's.
        trust: Run code that a saved program holds.
        progress: Takes lines about what is going on; those that begin with `* ` are worth keeping.

    Raises:
        UsageError: Methods or settings make no sense.
        BadInputError: Source or data cannot be used, or training runs away.
        LimitNotMetError: More was lost than allowed; nothing is delivered.
    """
    settings, folder = settings or Settings(), Path(out)
    texts = [method.text for method in parse_methods(methods)]
    check_settings(settings, is_judged=evaluation is not None)
    if is_hub_name(source):
        raise BadInputError(
            f"{source} is no file here, and what trains takes a factory in the place of a model of a hub",
            hint=tell_factory(Path(str(source).partition("@")[0])),
        )
    parsed = parse_source(source)
    _require_torch_source(parsed)
    say = progress or (lambda _text: None)
    with made_folder(folder), locked_folder(folder):
        checkpoint = Checkpoint(folder)
        if overwrite:
            checkpoint.remove()
        known = None if overwrite else _find_known(folder)
        goes_on = checkpoint.folder.exists()
        with scratch_directory(folder) as scratch:
            staging = Path(scratch) / "result"
            staging.mkdir()
            loading = {
                "kind": parsed.kind,
                "path": str(parsed.path),
                "folder": str(parsed.folder),
                "function": parsed.function,
                "trust": trust,
            }
            train_path = _place_data(train, Path(scratch) / "train", loading, say)
            evaluation_path = (
                None if evaluation is None else _place_data(evaluation, Path(scratch) / "eval", loading, say)
            )
            for sentence in explain_pictures((str(train), train_path), (str(evaluation), evaluation_path)):
                say(f"* {sentence}")
            request = {
                **loading,
                "source": parsed.text,
                "methods": texts,
                "settings": encode(settings),
                "train_path": str(train_path),
                "train_name": _shorten(train),
                "evaluation_path": None if evaluation_path is None else str(evaluation_path),
                "evaluation_name": None if evaluation is None else _shorten(evaluation),
                "out": str(folder),
                "staging": str(staging),
                "known": known.key if known else None,
                "renew": renew,
            }
            try:
                made = run_in_child(
                    "modelwright.compression.worker:compress_in_child",
                    request,
                    purpose=f"compressing {parsed.text}",
                    crash_error=BuildFailedError,
                    progress=progress,
                )
            except BadInputError:
                if not goes_on:  # what failed by its own input would fail again; what crashed or was ended goes on
                    checkpoint.remove()
                raise
            if made is None:
                assert known is not None
                _require_kept(
                    known,
                    settings.max_drop,
                    "it lies there already: choose another --out, to train longer (--epochs) or take less away",
                )
                return Compressed(folder=folder, record=known, reused=True)
            record = decode(CompressedModel, made)
            _require_kept(
                record,
                settings.max_drop,
                "train longer (--epochs), take less away, or allow more: the same command with --max-drop {enough} "
                f"delivers what was trained, which is kept in {folder / CHECKPOINT_FOLDER}",
            )
            _place(staging, folder, record)
        checkpoint.remove()
    return Compressed(folder=folder, record=record, reused=False)


def _require_torch_source(source: Source) -> None:
    if source.kind == "onnx":
        raise BadInputError(
            f"{source.text} is an ONNX model, which nothing here can train",
            hint="give the PyTorch source that it was exported from: FILE.py:FUNCTION, or model.pt2",
        )
    if source.kind == "transformers":
        raise BadInputError(
            f"{source.text} is a folder of transformers, and what trains takes a factory",
            hint=tell_factory(source.folder),
        )


def _find_known(folder: Path) -> CompressedModel | None:
    """Returns the record of what lies in the folder already."""
    if is_compressed_folder(folder):
        return load_compressed(folder)
    taken = [name for name in (COMPRESSED_PROGRAM, COMPRESSED_WEIGHTS) if (folder / name).exists()]
    # Beside a checkpoint they are what a run left that was ended between two files.
    if taken and not Checkpoint(folder).folder.exists():
        raise BadInputError(
            f"{folder / taken[0]} exists, and no compression wrote it", hint="choose another --out, or add --overwrite"
        )
    return None


def _place_data(data: Named, folder: Path, loading: Mapping[str, Any], say: Progress) -> Path:
    """Returns the sample file that a text names: what a function yields and pictures are stored first."""
    spec = str(data)
    if is_random(spec):
        raise BadInputError(f"{spec}: noise has no answers to learn", hint="give a .npz, or FILE.py:FUNCTION")

    def place(signature: Signature | None) -> Path:
        if is_python(spec):
            return materialize_function(data, folder, signature=signature, limit=ROW_LIMIT, batched=True, progress=say)
        return materialize_samples(data, signature, folder, most=ROW_LIMIT, progress=say)

    try:
        return place(None)
    except SignatureNeededError:
        described = run_in_child(
            "modelwright.compression.loading:describe_in_child",
            loading,
            purpose=f"reading the inputs of {loading['path']}",
            crash_error=BadInputError,
            progress=say,
        )
        return place(decode(Signature, described))


def _shorten(data: Named) -> str:
    """Returns data as the user named them, without folders."""
    path, function = split_function(str(data))
    return path.name if function is None else f"{path.name}:{function}"


def _require_kept(record: CompressedModel, max_drop: float | None, hint: str) -> None:
    """Refuses a result that loses more than allowed.

    Args:
        record: The result.
        max_drop: In points; None without a limit.
        hint: What to do now; `{enough}` stands for a limit that is kept.
    """
    if max_drop is None:
        return
    lost = record.quality_before.points_lost(record.quality_after)
    if lost > max_drop + _ROUNDING:
        change = f"{record.quality_before.describe()} to {record.quality_after.describe()}"
        enough = math.ceil(lost * 1000) / 1000  # rounded to nearest it might be too little again
        raise LimitNotMetError(
            f"{' '.join(record.methods)} loses {lost:.3g} points ({change} on {record.quality_after.samples} samples), "
            f"and --max-drop allows {max_drop:g}",
            hint=hint.replace("{enough}", f"{enough:.12g}"),
        )


def _place(staging: Path, folder: Path, record: CompressedModel) -> None:
    """Moves a result to its place; its record leaves first and comes last, so that no record lists other files."""
    for name in (COMPRESSION_RECORD, *record.files):
        require_no_other(folder / name)
    (folder / COMPRESSION_RECORD).unlink(missing_ok=True)
    for name in record.files:
        (staging / name).replace(folder / name)
    save_compressed(record, folder)
