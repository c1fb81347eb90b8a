"""Real inputs, for calibration and for evaluation: opened as memory maps, checked, split, hashed, streamed.

A sample file is a `.npz` keyed by input name (and `labels`, and `target_...`: what answers should be), or a folder
of `.npy` files with the same names, which is what a sample function's output is stored as. Axis 0 of every array counts
the samples. An input of the shape [batch, ...] takes sample i as `x[i:i+1]`; an array of one dimension more than the
input takes it as `x[i]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import Count, Record
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import array_file_name, read_arrays
from modelwright.core.samples.fitting import suggest_shape, suggest_type
from modelwright.core.samples.npy import NpyWriter

Array = npt.NDArray[Any]
Part = Literal["all", "calibration", "tuning", "evaluation"]

LABELS = "labels"
TARGET = "target_"
"""Begins the names of arrays that no model is fed with: what a metric of the user's holds the answers against."""
SPLIT_SEED = 20260101
"""Fixes which samples calibrate and which judge, so that two runs agree."""
CALIBRATION_LIMIT = 256
"""Samples read for calibration at most: activation ranges settle long before (NNCF's default is 300)."""
TUNING_LIMIT, MOST_TUNING = 64, 256
"""Samples for choosing among recipes: so many before any calibrate, and of those that neither needs, up to so many."""
_BLOCK_BYTES = 16 * 2**20


class SampleRef(Record):
    """Names a part of a sample file, in a form that crosses a process border.

    Attributes:
        path: A `.npz` file or a folder of `.npy` files.
        part: Which part of it.
        limit: At most this many samples of the part; None for all.
        holds_evaluation: Whether the file also has to supply the evaluation samples (no `--eval` was given), so
            that half of it is held back.
    """

    path: Path
    part: Part = "all"
    limit: Count | None = None
    holds_evaluation: bool = True


class SampleSet:
    """Samples that fit a signature.

    Attributes:
        count: Number of samples.
        labels: int64 [count] class numbers, or None.
        rows: int64 [count]: which samples of the file these are, counted from 0.
        sha256: Of names, dtypes, shapes and bytes of the chosen samples.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        labels: Array | None,
        indices: npt.NDArray[np.int64],
        signature: Signature,
        targets: Mapping[str, Array] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self._targets = dict(targets or {})
        self.rows = self._indices = indices
        self._rows = {spec.name: _rows_per_sample(spec, arrays[spec.name]) for spec in signature.inputs}
        self._specs = {spec.name: spec for spec in signature.inputs}
        self.labels = None if labels is None else np.asarray(labels[indices], dtype=np.int64)
        self.count = len(indices)

    def feeds(self, limit: int | None = None) -> Iterator[dict[str, Array]]:
        """Yields one inference's inputs after the other, batch dimension included, in the signature's dtypes."""
        for index in self._indices[:limit]:
            yield self._feeds_of(int(index))

    def sample(self, position: int) -> dict[str, Array]:
        """Returns one inference's inputs, batch dimension included."""
        return self._feeds_of(int(self._indices[position]))

    def batch(self, positions: Sequence[int]) -> dict[str, Array]:
        """Returns several samples as one batch: [len(positions), ...] for every input."""
        parts = [self._feeds_of(int(self._indices[position])) for position in positions]
        return {name: np.ascontiguousarray(np.concatenate([part[name] for part in parts])) for name in self._arrays}

    def targets(self) -> dict[str, Array]:
        """Returns what the answers are held against, a row a sample: by name, and the labels where there are any."""
        labels = {} if self.labels is None else {LABELS: self.labels}
        return {**labels, **{name: np.asarray(array[self._indices]) for name, array in self._targets.items()}}

    @property
    def target_names(self) -> tuple[str, ...]:
        """The arrays that answers are held against, without the labels."""
        return tuple(self._targets)

    def target(self, name: str, position: int) -> Array:
        """Returns the row of a `target_...` array for one sample."""
        return np.asarray(self._targets[name][self._indices[position]])

    def _feeds_of(self, index: int) -> dict[str, Array]:
        feeds = {}
        for name, array in self._arrays.items():
            rows = self._rows[name]
            part = array[index] if rows == 0 else array[index * rows : (index + 1) * rows]
            feeds[name] = np.array(part, dtype=self._specs[name].dtype, order="C", copy=True, ndmin=0)
        return feeds

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self._arrays):
            digest.update(f"{name} {self._specs[name].dtype} {self._arrays[name].shape[1:]};".encode())
        for feeds in self.feeds():
            for name in sorted(feeds):
                digest.update(feeds[name].tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        for name in sorted(self._targets):
            array = self._targets[name]
            digest.update(f"{name} {array.dtype} {array.shape[1:]};".encode())
            for index in self._indices:
                digest.update(array[index].tobytes())
        return digest.hexdigest()


def open_samples(ref: SampleRef, signature: Signature, *, checked: bool = False) -> SampleSet:
    """Opens a part of a sample file; arrays stay on disk where the file can be mapped.

    Args:
        ref: The part.
        signature: Of the model that the samples are for.
        checked: Whether the values are known to be finite: reading all of them again costs time, and counts as
            memory of the process that does.

    Raises:
        BadInputError: The file cannot be read, or does not fit the signature: names what was found and expected.
    """
    arrays = read_arrays(ref.path, checked=checked)
    inputs = {spec.name for spec in signature.inputs}
    labels = arrays.pop(LABELS, None) if LABELS not in inputs else None
    targets = {name: arrays.pop(name) for name in list(arrays) if name.startswith(TARGET) and name not in inputs}
    count = _check_arrays(ref.path, arrays, labels, targets, signature)
    if not checked:
        for spec in signature.inputs:
            _check_finite(ref.path, spec, arrays[spec.name])
    indices = select_part(count, ref.part, holds_evaluation=ref.holds_evaluation, limit=ref.limit)
    ordered = {spec.name: arrays[spec.name] for spec in signature.inputs}
    return SampleSet(ordered, labels, indices, signature, targets)


def select_part(
    count: int, part: Part, *, holds_evaluation: bool = True, limit: int | None = None
) -> npt.NDArray[np.int64]:
    """Returns the sorted indices of a part; the parts never overlap.

    The order is shuffled with a fixed seed first, because files are often sorted by class. With `holds_evaluation`
    one half judges; of the rest, a quarter (at most `TUNING_LIMIT`) is for choosing among recipes, and what calibration
    does not need either, up to `MOST_TUNING`.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(count).astype(np.int64)
    judged = count // 2 + count % 2 if holds_evaluation else 0
    rest = order[judged:]
    tuned = min(len(rest) // 4, TUNING_LIMIT)
    left = rest[tuned + CALIBRATION_LIMIT :][: MOST_TUNING - tuned]
    chosen = {
        "all": order,
        "evaluation": order[:judged] if holds_evaluation else order,
        "tuning": np.concatenate((rest[:tuned], left)),
        "calibration": rest[tuned : tuned + CALIBRATION_LIMIT],
    }[part]
    return np.sort(chosen[:limit])


def write_random(directory: Path, signature: Signature, *, count: int, seed: int = 0) -> Path:
    """Writes random samples for a signature: normal floats, integers of 0 and 1, dynamic dimensions of 1 to 128.

    Only for when the user asks for it by name: accuracy and agreement on noise say little.
    """
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for spec in signature.inputs:
        shape = [_random_size(axis, size) for axis, size in enumerate(spec.shape or ())]
        row = tuple(shape[1:] if shape and shape[0] == 1 else shape)
        dtype = np.dtype(spec.dtype)
        with NpyWriter(directory / array_file_name(spec.name), dtype, row) as writer:
            for _ in range(count):
                values = rng.standard_normal(row) if dtype.kind == "f" else rng.integers(0, 2, row)
                writer.append(np.asarray(values).astype(dtype))
    return directory


def _random_size(axis: int, size: int | str) -> int:
    if isinstance(size, int):
        return size
    return 1 if axis == 0 else 128


def _rows_per_sample(spec: TensorSpec, array: Array) -> int:
    """Returns how many rows of the array make one sample; 0 when `array[i]` is a whole input."""
    if spec.rank is None or array.ndim == spec.rank + 1:
        return 0
    first = spec.shape[0] if spec.shape else 1
    return first if isinstance(first, int) else 1


def _check_arrays(
    path: Path, arrays: Mapping[str, Array], labels: Array | None, targets: Mapping[str, Array], signature: Signature
) -> int:
    expected = {spec.name: spec for spec in signature.inputs}
    described = "; ".join(spec.describe() for spec in signature.inputs)
    missing = [name for name in expected if name not in arrays]
    extra = [name for name in arrays if name not in expected]
    if missing or extra:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(extra)}"] if extra else []
        renamed = f"save {extra[0]} under the name {missing[0]}: " if len(missing) == len(extra) == 1 else ""
        raise BadInputError(
            f"{path}: the arrays do not match the model's inputs: {'; '.join(faults)}",
            hint=f"{renamed}the model expects: {described}; plus, if you like, `labels`, and `target_...` for a "
            "--metric",
        )
    counts = {}
    for name, spec in expected.items():
        counts[name] = _check_array(path, spec, arrays[name])
    if labels is not None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise BadInputError(
                f"{path}: labels must be integer class numbers of shape [samples], "
                f"not {labels.dtype} {list(labels.shape)}",
                hint="number the classes as the model's output does, from 0, one number a sample; or leave labels away",
            )
        counts[LABELS] = len(labels)
        _check_labels(path, labels, signature)
    counts |= {name: len(array) if array.ndim else 0 for name, array in targets.items()}
    if len(set(counts.values())) != 1:
        numbers = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise BadInputError(
            f"{path}: the arrays hold different numbers of samples ({numbers})", hint=_hint_for_counts(expected, arrays)
        )
    count = next(iter(counts.values()))
    if count == 0:
        raise BadInputError(f"{path} holds 0 samples", hint="at least 2 are needed: one calibrates, one judges")
    return count


def _hint_for_counts(expected: Mapping[str, TensorSpec], arrays: Mapping[str, Array]) -> str:
    """Names the inputs whose first axis is not the samples': a state [layers, batch, width] counts by its layers."""
    stacked = [spec for name, spec in expected.items() if _rows_per_sample(spec, arrays[name]) > 1]
    if not stacked:
        return "each array needs one entry a sample, in the same order"
    shapes = ", ".join(f"{spec.name} as [{', '.join(['samples', *map(str, spec.shape or ())])}]" for spec in stacked)
    return f"stack whole inputs along a new first axis: {shapes}"


def _check_labels(path: Path, labels: Array, signature: Signature) -> None:
    """Refuses class numbers that no output [batch, classes] has: every answer would count as wrong."""
    classes = count_classes(signature)
    if classes is None or not labels.size:
        return
    if labels.min() < 0 or labels.max() >= classes:
        raise BadInputError(
            f"{path}: labels go from {labels.min()} to {labels.max()}, the model has the classes 0 to {classes - 1}",
            hint="count classes from 0, in the order of the model's output; leave samples without a class out",
        )


def count_classes(signature: Signature) -> int | None:
    """Returns how many classes a model's one output [batch, classes] has; None where there is no such."""
    sizes = [spec.shape[-1] for spec in signature.outputs if spec.rank == 2 and spec.shape]
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], int) and sizes[0] >= 2 else None


def _check_array(path: Path, spec: TensorSpec, array: Array) -> int:
    """Checks one array against its input; returns the number of samples in it."""
    if array.dtype != np.dtype(spec.dtype) and not _is_harmless_cast(array, spec.dtype):
        raise BadInputError(
            f"{path}: {spec.name} is {array.dtype}, the model expects {spec.dtype}",
            hint=suggest_type(spec, array.shape, array.dtype),
        )
    rank = spec.rank or 0
    stacked = array.ndim == rank + 1
    found = array.shape[1:] if stacked else (None, *array.shape[1:])
    wrong_rank = array.ndim not in (rank, rank + 1) or array.ndim == 0
    if wrong_rank or any(
        isinstance(want, int) and have is not None and want != have
        for want, have in zip(spec.shape or (), found, strict=True)
    ):
        wanted = ["samples", *(str(d) for d in (spec.shape or ())[0 if stacked and rank else 1 :])]
        raise BadInputError(
            f"{path}: {spec.name} has the shape {list(array.shape)}, the model expects {spec.describe()}",
            hint=suggest_shape(spec, array.shape) or f"save it as [{', '.join(wanted)}]",
        )
    rows = _rows_per_sample(spec, array)
    if rows > 1 and array.shape[0] % rows:
        raise BadInputError(
            f"{path}: {spec.name} has {array.shape[0]} rows, the model takes {rows} at a time",
            hint=f"give a multiple of {rows} rows, or stack whole inputs along a new first axis",
        )
    return int(array.shape[0]) // max(1, rows)


def _is_harmless_cast(array: Array, dtype: str) -> bool:
    """Whether a cast changes no value by more than the last bit: float64 to float32, int32 to int64 and back."""
    kinds = {array.dtype.kind, np.dtype(dtype).kind}
    if kinds == {"f"}:
        return bool(array.dtype.itemsize >= np.dtype(dtype).itemsize)
    if kinds <= {"i", "u"}:
        bounds = np.iinfo(dtype)
        return array.size == 0 or bool(array.min() >= bounds.min and array.max() <= bounds.max)
    return False


def _check_finite(path: Path, spec: TensorSpec, array: Array) -> None:
    """Reads a float array once, block by block, as the model will see it: 1e300 is finite only until the cast."""
    if array.dtype.kind != "f" or array.size == 0:
        return
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, array.shape[0], rows):
        block = array[start : start + rows]
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(spec.dtype, copy=False))
        if finite.all():
            continue
        place = tuple(np.argwhere(~finite)[0])
        value, row = block[place], start + int(place[0])
        if np.isfinite(value):
            raise BadInputError(
                f"{path}: {spec.name} holds {value:g} in row {row}, which is infinite in the model's {spec.dtype}",
                hint="scale the samples as the model was trained on, or take out what stands for a missing value",
            )
        raise BadInputError(
            f"{path}: {spec.name} holds NaN or infinity, first in row {row}",
            hint="a quantizer calibrated on these would be silently wrong: clean the samples",
        )
