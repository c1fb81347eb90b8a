"""Where samples come from: a file that is there, a function of the user's that yields them, or noise asked for by name.

A function runs in a child process and its samples go to disk as they come, so that neither their number nor the
libraries it imports matter to this process.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from modelwright.core.child import Progress, run_in_child
from modelwright.core.errors import BadInputError
from modelwright.core.samples import LABELS, Array, array_file_name, read_arrays, write_random
from modelwright.core.signature import Signature

FUNCTION_LIMIT = 1024
"""Samples taken from a function at most: it may yield for ever."""
RANDOM_COUNT = 64
_HEADER_BYTES = 256
"""Room for a `.npy` header whose number of rows is known only at the end."""


def is_random(spec: str) -> bool:
    """Returns whether noise was asked for by name: `random` or `random:COUNT`."""
    return spec == "random" or spec.startswith("random:")


def materialize_samples(
    spec: str, signature: Signature | None, directory: Path, progress: Progress | None = None
) -> Path:
    """Returns a file or folder that `samples.open_samples` reads.

    Args:
        spec: `.npz` file, `file.py:function`, or `random[:COUNT]`.
        signature: Needed for noise only.
        directory: A folder that does not exist yet, for what has to be written.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: No such file or function, or what it yields cannot be samples.
    """
    if is_random(spec):
        if signature is None:
            raise BadInputError("random samples need a model whose signature is known")
        return write_random(directory, signature, count=_parse_count(spec))
    path, separator, function = spec.rpartition(":")
    if separator and path.endswith(".py"):
        run_in_child(
            "modelwright.core.sample_store:store_in_child",
            {"path": path, "function": function, "directory": str(directory), "limit": FUNCTION_LIMIT},
            purpose=f"the sample function {spec}",
            crash_error=BadInputError,
            progress=progress,
        )
        return directory
    if spec.endswith(".py"):
        raise BadInputError(f"{spec} names no function", hint=f"give {spec}:FUNCTION, which yields dicts of arrays")
    read_arrays(Path(spec))
    return Path(spec)


def _parse_count(spec: str) -> int:
    _, separator, count = spec.partition(":")
    if not separator:
        return RANDOM_COUNT
    if not count.isdecimal() or int(count) == 0:
        raise BadInputError(f"{spec!r} is not a number of random samples", hint="for instance random:64")
    return int(count)


def store_in_child(path: str, function: str, directory: str, limit: int, progress: Progress) -> int:
    """Child side: runs the user's function and writes what it yields; returns the number of samples."""
    yielded = load_function(Path(path), function)()
    if isinstance(yielded, Mapping) or not isinstance(yielded, Iterable):
        raise BadInputError(
            f"{path}:{function} returned {type(yielded).__name__}, not an iterable of dicts",
            hint="yield one dict a sample: {'input_name': array}",
        )
    folder = Path(directory)
    folder.mkdir(parents=True)
    writers: dict[str, _ArrayWriter] = {}
    count = 0
    try:
        for count, sample in enumerate(yielded, start=1):
            if not isinstance(sample, Mapping):
                raise BadInputError(f"{path}:{function}: sample {count} is {type(sample).__name__}, not a dict")
            arrays = {str(name): _to_array(value, f"{path}:{function}", count) for name, value in sample.items()}
            if count == 1:
                writers = {name: _ArrayWriter(folder / array_file_name(name), array) for name, array in arrays.items()}
            _check_like_first(arrays, writers, f"{path}:{function}", count)
            for name, array in arrays.items():
                writers[name].append(array)
            if count % 64 == 0:
                progress(f"{count} samples of {function}")
            if count >= limit:
                break
    finally:
        for writer in writers.values():
            writer.close()
    if count == 0:
        raise BadInputError(f"{path}:{function} yields no samples", hint="at least 2 are needed")
    return count


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Imports a function from a file of the user's.

    Raises:
        BadInputError: No such file, the file does not import, or it has no such function.
    """
    if not path.is_file():
        raise BadInputError(f"no such file: {path}")
    sys.path.insert(0, str(path.resolve().parent))  # the file may import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInputError(
            f"{path} does not import: {type(error).__name__}: {error}", hint="run it with Python first"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        names = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise BadInputError(f"{path} has no function {name!r}", hint=f"it has: {', '.join(names) or 'none'}")
    return function  # type: ignore[no-any-return]


def _to_array(value: Any, where: str, count: int) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch to ask
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise BadInputError(f"{where}: sample {count} holds Python objects, not numbers")
    return array


def _check_like_first(arrays: Mapping[str, Array], writers: Mapping[str, _ArrayWriter], where: str, count: int) -> None:
    if arrays.keys() != writers.keys():
        raise BadInputError(f"{where}: sample {count} has {sorted(arrays)}, the first had {sorted(writers)}")
    for name, array in arrays.items():
        first = writers[name]
        if (array.shape, array.dtype) != (first.shape, first.dtype):
            raise BadInputError(
                f"{where}: {name} of sample {count} is {array.dtype} {list(array.shape)}, "
                f"the first was {first.dtype} {list(first.shape)}",
                hint="all samples need one shape: pad or crop them",
            )


class _ArrayWriter:
    """Appends arrays of one shape to a `.npy` file; the header is written when the number of rows is known.

    `labels` may be numbers; an input keeps its shape, one more axis in front counts the samples unless its own first
    axis, of size 1, already does.
    """

    def __init__(self, path: Path, first: Array) -> None:
        self.shape, self.dtype = first.shape, first.dtype
        self._counts_itself = first.ndim > 0 and first.shape[0] == 1 and path.name != array_file_name(LABELS)
        self._rows = 0
        self._file: IO[bytes] = path.open("wb")
        self._file.write(b"\0" * _HEADER_BYTES)

    def append(self, array: Array) -> None:
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._rows += 1

    def close(self) -> None:
        """Writes the header into the room kept for it, padded with spaces as the format allows."""
        shape = self.shape[1:] if self._counts_itself else self.shape
        if self.shape == (1,) and not self._counts_itself:
            shape = ()
        header = f"{{'descr': {np.lib.format.dtype_to_descr(self.dtype)!r}, 'fortran_order': False, "
        header += f"'shape': {(self._rows, *shape)!r}, }}"
        body = header.encode("latin1").ljust(_HEADER_BYTES - 11) + b"\n"
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
        self._file.close()
