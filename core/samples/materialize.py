"""Samples as the user names them - arrays, pictures, texts, a function, or noise - turned into a sample file."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.process.child import Progress
from modelwright.core.records.signature import Signature
from modelwright.core.samples.archives import is_compressed, unpack_archive
from modelwright.core.samples.functions import FUNCTION_LIMIT, materialize_function
from modelwright.core.samples.loose_arrays import are_loose, materialize_arrays
from modelwright.core.samples.pictures.folder import SUFFIXES, holds_pictures
from modelwright.core.samples.pictures.store import materialize_pictures
from modelwright.core.samples.python_source import is_python
from modelwright.core.samples.sample_set import write_random
from modelwright.core.samples.source import Named, SignatureNeededError, as_source
from modelwright.core.samples.texts.rows import is_text_file
from modelwright.core.samples.texts.store import materialize_texts
from modelwright.core.system_errors import explain_os_error

PICTURE_LIMIT = 10_000
"""Pictures, or texts, taken at most: accuracy is then known within a point, and 6 GB of 224x224 are written."""
RANDOM_COUNT = 64
RANDOM_LIMIT = 65_536
_RANDOM = "random"
_EXPLAIN = (
    "add --preprocess imagenet for models trained as torchvision's are, --preprocess scale=1/255 for values of 0 to 1; "
    "mean, std, channels, resize, crop and others say what differs, size and order of axes are read from the model"
)


def is_random(spec: str) -> bool:
    """Says whether the user asks for noise: `random` or `random:COUNT`."""
    return spec == _RANDOM or spec.startswith(f"{_RANDOM}:")


def materialize_samples(
    samples: Named,
    signature: Signature | None,
    directory: Path,
    *,
    limit: int = FUNCTION_LIMIT,
    most: int = PICTURE_LIMIT,
    progress: Progress | None = None,
) -> Path:
    """Returns the sample file that a text names, made in `directory` where it does not exist yet.

    Args:
        samples: `file.npz`, `file.npy`, a folder of `.npy` files or of pictures, `file.py:function`, `random` or
            `random:COUNT`; with what is done to pictures, or with what reads texts, a `SampleSource`.
        signature: Of the model; None before it is known, which noise, and what has no inputs' names, has to wait for.
        directory: Folder to write to; only made for what is not a sample file already.
        limit: Samples taken from a function at most.
        most: Pictures of a folder, or texts of a file, taken at most, chosen by a fixed seed.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: No such file or function, or what it holds cannot be used.
        SignatureNeededError: It has to wait for the model's signature.
        UsageError: A count that is no number, or preprocessing that makes no sense.
    """
    source = as_source(samples)
    spec = source.text
    if is_random(spec):
        if signature is None:
            raise SignatureNeededError(
                "random samples need the model's signature first", hint="export without --samples"
            )
        with explain_os_error(directory):
            return write_random(directory, signature, count=_parse_count(spec))
    if is_python(spec):
        return materialize_function(source, directory, signature=signature, limit=limit, progress=progress)
    if not Path(spec).exists():
        raise BadInputError(
            f"no such sample file: {spec}",
            hint="give a .npz keyed by input name, file.py:function that yields dicts, a folder of pictures, or "
            "`random` for noise",
        )
    if source.preprocess is not None:
        return materialize_pictures(source, signature, directory, limit=most, progress=progress)
    if source.reader is not None:
        return materialize_texts(source, directory, limit=most, progress=progress)
    if is_text_file(spec):
        raise BadInputError(
            f"{spec} is read as texts, and the source does not say how they become its inputs",
            hint="give the folder of transformers as the source, whose tokenizer does; or tokenize them, and save the "
            "arrays with numpy.savez",
        )
    return _find_arrays(Path(spec), signature, directory, progress)


def _find_arrays(path: Path, signature: Signature | None, directory: Path, progress: Progress | None) -> Path:
    with explain_os_error(path):
        _refuse_pictures(path)
    if are_loose(path, signature):
        return materialize_arrays(path, signature, directory, progress=progress)
    if not (path.is_dir() or (path.is_file() and path.suffix == ".npz")):
        raise BadInputError(
            f"{path} is no sample file, which is one whose name ends in .npz",
            hint="save one with numpy: numpy.savez('samples.npz', input_name=array)",
        )
    if path.is_file() and is_compressed(path):
        with explain_os_error(directory):
            return unpack_archive(path, directory)
    return path


def _refuse_pictures(path: Path) -> None:
    if holds_pictures(path):
        raise BadInputError(
            f"{path} is a folder of pictures, and nothing says what the model was trained on", hint=f"{_EXPLAIN}"
        )
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise BadInputError(
            f"{path} is one picture; samples are many", hint=f"put it into a folder with others, and {_EXPLAIN}"
        )


def _parse_count(spec: str) -> int:
    text = spec.partition(":")[2]
    if not text and ":" not in spec:
        return RANDOM_COUNT
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{spec!r}: {text!r} is not a number of samples", hint="write for instance random:64")
    if len(text) > len(str(RANDOM_LIMIT)) or int(text) > RANDOM_LIMIT:
        raise UsageError(
            f"{spec!r:.40}: at most {RANDOM_LIMIT:,} random samples are made: more of them show no more",
            hint=f"write for instance random:{RANDOM_COUNT}",
        )
    return int(text)
