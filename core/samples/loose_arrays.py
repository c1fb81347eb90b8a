"""Arrays without the model's names, for models with one input: a `.npy` file, or a folder with one a sample."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import array_file_name, read_array
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.sample_set import LABELS, TARGET
from modelwright.core.samples.source import SignatureNeededError
from modelwright.core.scratch import staged_directory
from modelwright.core.system_errors import explain_os_error

Array = npt.NDArray[Any]


def are_loose(path: Path, signature: Signature | None) -> bool:
    """Whether a file or folder holds arrays whose names are not the model's inputs.

    Before the model is known, a folder of files that are numbered is taken for one.
    """
    if path.is_file():
        return path.suffix == ".npy"
    names = [file.stem for file in _list_samples(path)]
    if signature is None:
        return len(names) > 1 and len({re.sub(r"\d+", "#", name) for name in names}) == 1
    inputs = {array_file_name(spec.name).removesuffix(".npy") for spec in signature.inputs}
    return len(inputs) == 1 and bool(names) and not inputs & set(names)


def materialize_arrays(
    path: Path, signature: Signature | None, directory: Path, *, progress: Progress | None = None
) -> Path:
    """Makes a folder of samples of arrays without the model's names.

    Args:
        path: A `.npy` file whose axis 0 counts the samples; or a folder, in which each file is one sample, or several
            along a first axis, in the order of the names; `labels.npy` and `target_...` in it are what they are.
        signature: Of the model.
        directory: The folder to make.
        progress: Takes a line now and then.

    Raises:
        BadInputError: The model has several inputs, or the arrays differ or cannot be read.
        SignatureNeededError: The model is not known yet.
    """
    if signature is None:
        raise SignatureNeededError(
            f"{path} does not say what the model's input is called",
            hint="save it with that name: numpy.savez('samples.npz', input_name=array)",
        )
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise BadInputError(
            f"{path} is one array, and the model takes {names}",
            hint="save all of them in one file, by their names: numpy.savez('samples.npz', input_name=array, ...)",
        )
    with staged_directory(directory) as staging:
        run_in_child(
            "modelwright.core.samples.loose_arrays:store_in_child",
            {"path": str(path), "spec": encode(signature.inputs[0]), "directory": str(staging)},
            purpose=f"reading {path}",
            crash_error=BadInputError,
            progress=progress,
        )
    return directory


def store_in_child(path: str, spec: dict[str, Any], directory: str, progress: Progress) -> None:
    """Child side of `materialize_arrays`."""
    source, wanted, made = Path(path), decode(TensorSpec, spec), Path(directory)
    files = [source] if source.is_file() else _list_samples(source)
    with explain_os_error(made):
        writer: NpyWriter | None = None
        try:
            for number, file in enumerate(files):
                progress(f"{file.name} (file {number + 1} of {len(files)})")
                for row in _split(file, wanted, whole=source.is_file()):
                    if writer is None:
                        writer = NpyWriter(made / array_file_name(wanted.name), row.dtype, row.shape)
                    if row.shape != writer.row_shape or row.dtype != writer.dtype:
                        raise BadInputError(
                            f"{file} holds {row.dtype} {list(row.shape)}, {files[0].name} {writer.dtype} "
                            f"{list(writer.row_shape)}",
                            hint="all samples need one shape and dtype",
                        )
                    writer.append(row)
        finally:
            if writer is not None:
                writer.close()
        if source.is_dir():
            for file in source.glob("*.npy"):
                if _is_answer(file.stem):
                    np.save(made / file.name, read_array(file))


def _split(file: Path, spec: TensorSpec, *, whole: bool) -> Iterator[Array]:
    """Yields the samples of a file, without an axis for the batch where it has one."""
    array = read_array(file)
    rank = spec.rank or 0
    if array.ndim == 0 or (not whole and array.ndim not in (rank - 1, rank)):
        raise BadInputError(
            f"{file} has the shape {list(array.shape)}, the model expects {spec.describe()}",
            hint="save each sample as the model takes it, with or without its first axis",
        )
    if whole or array.ndim == rank:
        yield from map(np.asarray, array)
    else:
        yield array


def _list_samples(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.npy")) if not _is_answer(file.stem)]


def _is_answer(name: str) -> bool:
    return name == LABELS or name.startswith(TARGET)
