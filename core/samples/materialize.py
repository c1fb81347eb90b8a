"""Samples as the user names them - a `.npz`, a function that yields them, or noise - turned into a sample file."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.signature import Signature
from modelwright.core.samples.archives import array_file_name, is_compressed, unpack_archive
from modelwright.core.samples.images import refuse_images
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.python_source import is_python, load_function, require_function, shorten_traceback
from modelwright.core.samples.sample_set import LABELS, write_random
from modelwright.core.scratch import staged_directory
from modelwright.core.system_errors import explain_os_error

Array = npt.NDArray[Any]

FUNCTION_LIMIT = 1024
"""Samples taken from a function at most: more change neither ranges nor verdicts, and generators may be endless."""
RANDOM_COUNT = 64
RANDOM_LIMIT = 65_536
_RANDOM = "random"
_PROGRESS_EVERY = 64


def is_random(spec: str) -> bool:
    """Says whether the user asks for noise: `random` or `random:COUNT`."""
    return spec == _RANDOM or spec.startswith(f"{_RANDOM}:")


def materialize_samples(
    spec: str,
    signature: Signature | None,
    directory: Path,
    *,
    limit: int = FUNCTION_LIMIT,
    progress: Progress | None = None,
) -> Path:
    """Returns the sample file that a text names, made in `directory` where it does not exist yet.

    Args:
        spec: `file.npz`, a folder of `.npy` files, `file.py:function`, `random` or `random:COUNT`.
        signature: Of the model; needed for noise only.
        directory: Folder to write to; only made for functions, noise and compressed files.
        limit: Samples taken from a function at most.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: No such file or function, or what the function yields cannot be used.
        UsageError: Noise without a signature, or a count that is no number.
    """
    if is_random(spec):
        if signature is None:
            raise UsageError("random samples need the model's signature first", hint="export without --samples")
        with explain_os_error(directory):
            return write_random(directory, signature, count=_parse_count(spec))
    if is_python(spec):
        return materialize_function(spec, directory, limit=limit, progress=progress)
    path = Path(spec)
    if not path.exists():
        raise BadInputError(
            f"no such sample file: {path}",
            hint="give a .npz keyed by input name, file.py:function that yields dicts, or `random` for noise",
        )
    refuse_images(path)
    if not (path.is_dir() or (path.is_file() and path.suffix == ".npz")):
        raise BadInputError(
            f"{path} is no sample file, which is one whose name ends in .npz",
            hint="save one with numpy: numpy.savez('samples.npz', input_name=array)",
        )
    if path.is_file() and is_compressed(path):
        with explain_os_error(directory):
            return unpack_archive(path, directory)
    return path


def materialize_function(
    spec: str,
    directory: Path,
    *,
    limit: int = FUNCTION_LIMIT,
    batched: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs the user's sample function in a child process and stores what it yields as a folder of `.npy` files.

    Each dict is one sample: input name -> array, and `labels` -> class number, if known. Row i of every file is
    sample i. Nothing but one sample is held in memory.

    Args:
        spec: `file.py:function`.
        directory: The folder to make; there is either all of it or nothing.
        limit: Stop after this many samples.
        batched: Whether each dict is a batch of samples, and every array in it begins with the axis of these.
        progress: Takes a line now and then.

    Raises:
        BadInputError: The function failed, or yields something else; names the sample's number.
    """
    path, name = require_function(spec, "yields samples")
    with staged_directory(directory) as staging:
        run_in_child(
            "modelwright.core.samples.materialize:store_in_child",
            {"path": str(path), "name": name, "directory": str(staging), "limit": limit, "batched": batched},
            purpose=f"running the sample function {spec}",
            crash_error=BadInputError,
            progress=progress,
        )
    return directory


def store_in_child(path: str, name: str, directory: str, limit: int, batched: bool, progress: Progress) -> int:
    """Child side of `materialize_function`; returns the number of samples."""
    function = load_function(Path(path), name)
    spec = f"{Path(path).name}:{name}"
    writers: dict[str, NpyWriter] = {}
    count = 0
    with contextlib.ExitStack() as stack, explain_os_error(Path(directory)):
        samples = _iterate(function, spec, limit)
        for row in itertools.islice(_split(samples, spec), limit) if batched else _read(samples, spec):
            if not count:
                for key, value in row.items():
                    file = Path(directory) / array_file_name(key)
                    writers[key] = stack.enter_context(NpyWriter(file, value.dtype, value.shape))
            _check_row(spec, count, row, writers)
            for key, value in row.items():
                writers[key].append(value)
            count += 1
            if count % _PROGRESS_EVERY == 0:
                progress(f"{count} samples from {spec}")
    if not count:
        raise BadInputError(f"{spec} yields no samples", hint="yield one dict a sample: input name -> array")
    return count


def _read(samples: Iterable[Any], spec: str) -> Iterator[dict[str, Array]]:
    """Yields samples as arrays by name."""
    for index, sample in enumerate(samples):
        yield {key: _to_array(spec, index, key, value) for key, value in _items(spec, index, sample)}


def _split(batches: Iterable[Any], spec: str) -> Iterator[dict[str, Array]]:
    """Yields the samples of batches, as arrays by name."""
    for index, batch in enumerate(_read(batches, spec)):
        arrays = {key: value.reshape(1) if key == LABELS and not value.ndim else value for key, value in batch.items()}
        sizes = {key: len(value) if value.ndim else 0 for key, value in arrays.items()}
        if len(set(sizes.values())) != 1 or not min(sizes.values()):
            found = ", ".join(f"{key}: {size}" for key, size in sizes.items())
            raise BadInputError(
                f"{spec}: the arrays of batch {index} hold different numbers of samples, or none ({found})",
                hint="yield batches: every array begins with the axis of the samples, such as x[None] for one of them",
            )
        for row in range(next(iter(sizes.values()))):
            yield {key: np.asarray(value[row]) for key, value in arrays.items()}


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


def _iterate(function: Callable[[], Any], spec: str, limit: int) -> Iterator[Any]:
    """Yields what the user's function yields; its errors name the sample that they came at."""
    count = 0
    try:
        samples = function()
        if isinstance(samples, Mapping):
            raise BadInputError(
                f"{spec} returns one dict; it must yield or return many, one a sample",
                hint="save whole arrays with numpy.savez and give the .npz instead",
            )
        if not isinstance(samples, Iterable):
            raise BadInputError(
                f"{spec} returns a {type(samples).__name__}, not samples",
                hint="yield one dict a sample: input name -> array",
            )
        iterator = iter(samples)
        while count < limit:
            try:
                sample = next(iterator)
            except StopIteration:
                return
            yield sample
            count += 1
    except BadInputError:
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        raise BadInputError(
            f"{spec} failed at sample {count}: {type(error).__name__}: {error}", detail=shorten_traceback(error)
        ) from error


def _items(spec: str, index: int, sample: Any) -> list[tuple[str, Any]]:
    if not isinstance(sample, Mapping) or not sample or not all(isinstance(key, str) for key in sample):
        raise BadInputError(
            f"{spec}: sample {index} is a {type(sample).__name__}, not a dict keyed by input name",
            hint="yield {'input_name': array, 'labels': class_number}; labels may be left out",
        )
    return list(sample.items())


def _to_array(spec: str, index: int, key: str, value: Any) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadInputError(f"{spec}: {key} of sample {index} is not an array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise BadInputError(
            f"{spec}: {key} of sample {index} is {array.dtype}, not numbers", hint="yield numpy arrays of numbers"
        )
    if key == LABELS and array.size == 1:
        array = array.reshape(())
    return array


def _check_row(spec: str, index: int, row: Mapping[str, Array], writers: Mapping[str, NpyWriter]) -> None:
    if row.keys() != writers.keys():
        raise BadInputError(
            f"{spec}: sample {index} has {', '.join(sorted(row))}; sample 0 has {', '.join(sorted(writers))}",
            hint="every sample needs the same names",
        )
    for key, value in row.items():
        writer = writers[key]
        if value.shape != writer.row_shape or value.dtype != writer.dtype:
            raise BadInputError(
                f"{spec}: {key} of sample {index} is {value.dtype} {list(value.shape)}, "
                f"of sample 0 {writer.dtype} {list(writer.row_shape)}",
                hint="all samples need one shape and dtype: pad or resize them (texts with their mask), or yield those "
                "of one size: what the model leaves open stays so where the runtime can; fix the dtype with astype",
            )
