"""Samples that a function of the user's yields, or the items of a data set: run in a child, stored row by row."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_json
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.pictures import PICTURES_FILE, Pictures, Preprocess
from modelwright.core.records.signature import Signature
from modelwright.core.samples.archives import array_file_name
from modelwright.core.samples.datasets import InputUnknownError, ItemReader, choose_items, is_dataset, name_classes
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.pictures.settle import settle
from modelwright.core.samples.pictures.wishes import parse_wishes
from modelwright.core.samples.python_source import load_function, require_function, shorten_traceback
from modelwright.core.samples.sample_set import LABELS
from modelwright.core.samples.source import Named, SignatureNeededError, as_source
from modelwright.core.scratch import staged_directory
from modelwright.core.system_errors import explain_os_error

Array = npt.NDArray[Any]

FUNCTION_LIMIT = 1024
"""Samples taken from a function at most: more change neither ranges nor verdicts, and generators may be endless."""
_PROGRESS_EVERY = 64


def materialize_function(
    samples: Named,
    directory: Path,
    *,
    signature: Signature | None = None,
    limit: int = FUNCTION_LIMIT,
    batched: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs the user's sample function in a child process and stores what it yields as a folder of `.npy` files.

    Each dict is one sample: input name -> array, and `labels` -> class number, if known. Row i of every file is
    sample i. Nothing but one sample is held in memory. A data set, which has items by number, is taken item by item.

    Args:
        samples: `file.py:function`, with what is done to pictures that it yields.
        directory: The folder to make; there is either all of it or nothing.
        signature: Of the model; None before it is known: then pairs and pictures have to wait.
        limit: Stop after this many samples.
        batched: Whether each dict is a batch of samples, and every array in it begins with the axis of these.
        progress: Takes a line now and then.

    Raises:
        BadInputError: The function failed, or yields something else; names the sample's number.
        SignatureNeededError: What it yields does not name the model's inputs, and the model is not known yet.
    """
    source = as_source(samples)
    spec = source.text
    path, name = require_function(spec, "yields samples")
    preprocess = None
    if source.preprocess is not None:
        with contextlib.suppress(SignatureNeededError):
            preprocess = settle(parse_wishes(source.preprocess), signature)
    with staged_directory(directory) as staging:
        count = run_in_child(
            "modelwright.core.samples.functions:store_in_child",
            {
                "path": str(path),
                "name": name,
                "directory": str(staging),
                "limit": limit,
                "batched": batched,
                "inputs": None if signature is None else [each.name for each in signature.inputs],
                "preprocess": encode(preprocess),
                "explained": source.preprocess is not None,
            },
            purpose=f"running the sample function {spec}",
            crash_error=BadInputError,
            progress=progress,
        )
        if count is None:
            raise SignatureNeededError(
                f"what {spec} yields does not name the model's inputs, which are not known yet",
                hint="yield {'input_name': array, 'labels': class_number}; of pictures, say the input's name and size: "
                "--preprocess ...,input=NAME,size=224",
            )
    return directory


def store_in_child(
    path: str,
    name: str,
    directory: str,
    limit: int,
    batched: bool,
    inputs: list[str] | None,
    preprocess: dict[str, Any] | None,
    explained: bool,
    progress: Progress,
) -> int | None:
    """Child side of `materialize_function`; returns the number of samples, None where the model has to be known."""
    function = load_function(Path(path), name)
    spec = f"{Path(path).name}:{name}"
    wanted = None if preprocess is None else decode(Preprocess, preprocess)
    reader = ItemReader(spec, inputs, wanted, explained=explained)
    writers: dict[str, NpyWriter] = {}
    count = 0
    with contextlib.ExitStack() as stack, explain_os_error(Path(directory)):
        yielded = _call(function, spec)
        samples = _translate(reader, _iterate(yielded, spec, limit))
        split = batched and not is_dataset(yielded)
        try:
            for row in itertools.islice(_split(samples, spec), limit) if split else _read(samples, spec):
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
        except InputUnknownError:
            return None
        if reader.read_pictures and wanted is not None:
            classes = name_classes(yielded)
            left = max(0, len(yielded) - count) if is_dataset(yielded) else 0
            order = None if classes is None else "the data set"
            record = Pictures(preprocess=wanted, classes=classes, order=order, taken=count, left=left)
            write_json(Path(directory) / PICTURES_FILE, encode(record))
    if not count:
        raise BadInputError(f"{spec} yields no samples", hint="yield one dict a sample: input name -> array")
    return count


def _translate(reader: ItemReader, items: Iterable[Any]) -> Iterator[Any]:
    return (reader.read(index, item) for index, item in enumerate(items))


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


def _call(function: Callable[[], Any], spec: str) -> Any:
    """Returns what the user's function returns: a data set, or what can be iterated over."""
    try:
        samples = function()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        raise _blame(spec, 0, error) from error
    if isinstance(samples, Mapping):
        raise BadInputError(
            f"{spec} returns one dict; it must yield or return many, one a sample",
            hint="save whole arrays with numpy.savez and give the .npz instead",
        )
    if not is_dataset(samples) and not isinstance(samples, Iterable):
        raise BadInputError(
            f"{spec} returns a {type(samples).__name__}, not samples",
            hint="yield one dict a sample: input name -> array",
        )
    return samples


def _iterate(samples: Any, spec: str, limit: int) -> Iterator[Any]:
    """Yields what the user's function yields; its errors name the sample that they came at."""
    count = 0
    try:
        iterator = choose_items(samples, limit) if is_dataset(samples) else iter(samples)
        while count < limit:
            try:
                sample = next(iterator)
            except StopIteration:
                return
            yield sample
            count += 1
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        raise _blame(spec, count, error) from error


def _blame(spec: str, count: int, error: BaseException) -> BadInputError:
    return BadInputError(
        f"{spec} failed at sample {count}: {type(error).__name__}: {error}", detail=shorten_traceback(error)
    )


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
