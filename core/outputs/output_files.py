"""Outputs of inferences on disk, such as FP32's: written one inference after the other, mapped when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_json
from modelwright.core.records.codec import Count, Record, encode, read_record
from modelwright.core.samples.archives import array_file_name
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.system_errors import explain_os_error

Array = npt.NDArray[Any]

INDEX = "reference.json"
_SERIAL_DIGITS = 6


class _Index(Record):
    """Which outputs of which shape lie in a folder of FP32's outputs; those of varying shape have a folder each."""

    count: Count
    outputs: tuple[str, ...]
    varying: tuple[str, ...]


class ReferenceOutputs(Sequence[Mapping[str, Array]]):
    """Outputs by sample, mapped from disk: `outputs[3]["logits"]` is [1, 10], as the model returned it."""

    def __init__(
        self,
        count: int,
        stacked: Mapping[str, Array],
        folders: Mapping[str, Path],
        names: list[str],
        *,
        writable: bool = False,
    ) -> None:
        self._writable = writable
        self._count = count
        self._stacked = stacked
        self._folders = folders
        self._names = names

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Array]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Array]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Array] | Sequence[Mapping[str, Array]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        return {name: self._read(name, position) for name in self._names}

    def _read(self, name: str, position: int) -> Array:
        if name in self._stacked:
            return np.asarray(self._stacked[name][position])
        return _map_array(self._folders[name] / _serial_name(position), writable=self._writable)


def write_outputs(outputs: Iterable[Mapping[str, Array]], names: Sequence[str], directory: Path) -> None:
    """Writes outputs as `read_reference` reads them.

    An output of one shape on all samples becomes `NAME.npy` [samples, ...]; one of varying shape a folder `NAME` with
    a file a sample. `reference.json`, written last, says which.

    Args:
        outputs: One mapping a sample.
        names: Of the outputs.
        directory: Folder to write to; made if absent.

    Raises:
        BuildFailedError: No space on the disk.
    """
    with OutputsWriter(names, directory) as writer:
        for sample in outputs:
            writer.append(sample)


class OutputsWriter:
    """Writes outputs sample by sample, as `write_outputs` does; what is left when it fails has no `reference.json`.

    Args:
        names: Of the outputs.
        directory: Folder to write to; made if absent.

    Raises:
        BuildFailedError: No space on the disk.
    """

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._count = 0
        with explain_os_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._writers = {name: self._stack.enter_context(_OutputWriter(directory, name)) for name in names}

    def append(self, sample: Mapping[str, Array]) -> None:
        """Takes one inference's outputs."""
        with explain_os_error(self._directory):
            for name, value in sample.items():
                self._writers[name].append(np.asarray(value))
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        varying = tuple(name for name, writer in self._writers.items() if writer.is_varying)
        with explain_os_error(self._directory):
            self._stack.close()
            if kind is None:
                index = _Index(count=self._count, outputs=tuple(self._writers), varying=varying)
                write_json(self._directory / INDEX, encode(index))


def read_reference(directory: Path, *, writable: bool = False) -> ReferenceOutputs:
    """Opens what `write_outputs` wrote; the arrays stay on disk.

    Args:
        directory: That was written to.
        writable: Whether the arrays may be changed; what is written stays in memory, and the files as they are.

    Raises:
        BadInputError: The folder is missing or incomplete.
    """
    index = read_record(_Index, directory / INDEX, what="an index of FP32 outputs")
    folders = {name: _folder_of(directory, name) for name in index.varying}
    stacked = {
        name: _map_array(directory / array_file_name(name), writable=writable)
        for name in index.outputs
        if name not in index.varying and index.count
    }
    short = [name for name, array in stacked.items() if len(array) != index.count]
    if short:
        raise BadInputError(f"{directory} is damaged: {short[0]} does not hold {index.count} samples")
    return ReferenceOutputs(index.count, stacked, folders, list(index.outputs), writable=writable)


class _OutputWriter:
    """Writes one output: stacked as long as its shape stays the same, in a file a sample from then on."""

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / array_file_name(name)
        self._folder = _folder_of(directory, name)
        self._writer: NpyWriter | None = None
        self._count = 0
        self.is_varying = False

    def append(self, value: Array) -> None:
        if self._writer is None and not self.is_varying:
            self._writer = NpyWriter(self._path, value.dtype, value.shape)
        if self._writer is not None and (value.shape, value.dtype) != (self._writer.row_shape, self._writer.dtype):
            self._unstack()
        if self._writer is not None:
            self._writer.append(value)
        else:
            np.save(self._folder / _serial_name(self._count), value)
        self._count += 1

    def _unstack(self) -> None:
        """Splits what was stacked so far."""
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self.is_varying = True
        self._folder.mkdir(exist_ok=True)
        for position, value in enumerate(_map_array(self._path)):
            np.save(self._folder / _serial_name(position), value)
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _folder_of(directory: Path, name: str) -> Path:
    return directory / array_file_name(name).removesuffix(".npy")


def _serial_name(position: int) -> str:
    return f"{position:0{_SERIAL_DIGITS}d}.npy"


def _map_array(path: Path, *, writable: bool = False) -> Array:
    try:
        array = np.load(path, mmap_mode="c" if writable else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint="compute the FP32 outputs again") from error
    return np.asarray(array)
