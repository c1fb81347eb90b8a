"""Data that train and judge: arrays by name, checked once, handed out as batches. For child processes only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import DataUsed
from modelwright.core.records.pictures import read_pictures
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.sample_set import LABELS, SPLIT_SEED, TARGET, SampleRef
from modelwright.exporters.cache import hash_samples
from modelwright.exporters.torch.source import import_torch

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

HELD_SHARE = 8
"""One sample in so many of the training data chooses among epochs, and trains nothing."""
HELD_LIMIT = 2048
LEAST_SPLIT = 16
"""Fewer samples than this are not split: they choose and train."""
LEAST_JUDGING = 8
"""Fewer samples than this tell no loss from chance."""
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Data:
    """Samples with what their answers are held against.

    Attributes:
        name: As the user wrote it, without folders.
        path: The sample file.
        inputs: Input name -> array [samples, ...].
        answers: `labels` and what begins with `target_`: name -> array [samples, ...].
        dtypes: Input name -> torch dtype of the module's.
        count: Samples.
    """

    name: str
    path: Path
    inputs: dict[str, Array]
    answers: dict[str, Array]
    dtypes: dict[str, Any]
    count: int

    def batches(self, indices: Indices, size: int) -> Iterator[dict[str, Any]]:
        """Yields batches of the samples with these numbers, in this order: name -> tensor.

        A last batch of one sample is left out where there are larger ones: statistics of a batch need two.
        """
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            if len(chosen) > 1 or not start or size == 1:
                yield self.take(chosen)

    def take(self, indices: Indices) -> dict[str, Any]:
        """Returns some samples as one batch."""
        torch = import_torch()
        batch = {
            name: torch.from_numpy(np.array(array[indices])).to(self.dtypes[name])
            for name, array in self.inputs.items()
        }
        for name, array in self.answers.items():
            tensor = torch.from_numpy(np.array(array[indices]))
            batch[name] = tensor.float() if tensor.is_floating_point() else tensor.long()
        return batch

    def split(self) -> tuple[Indices, Indices]:
        """Returns the numbers of the samples that train, and of those that choose among epochs.

        They never overlap, but where there are too few to split: then both are all.
        """
        order = np.random.default_rng(SPLIT_SEED).permutation(self.count).astype(np.int64)
        if self.count < LEAST_SPLIT:
            return order, order
        held = min(self.count // HELD_SHARE, HELD_LIMIT)
        return np.sort(order[held:]), np.sort(order[:held])

    def describe(self) -> DataUsed:
        """Returns what the record says of it."""
        return DataUsed(
            name=self.name[:200],
            sha256=hash_samples(SampleRef(path=self.path)),
            samples=self.count,
            pictures=read_pictures(self.path) or UNSET,
        )

    def hash_rows(self) -> list[bytes]:
        """Returns a hash of the inputs of each sample."""
        digests = [hashlib.blake2b(digest_size=16) for _ in range(self.count)]
        for name, array in sorted(self.inputs.items()):
            # In the network's type: the same numbers in another one are the same samples.
            dtype = str(self.dtypes[name]).removeprefix("torch.")
            for digest, row in zip(digests, array, strict=True):
                digest.update(np.ascontiguousarray(row, dtype).tobytes())
        return [digest.digest() for digest in digests]


def open_data(path: Path, name: str, examples: dict[str, Any]) -> Data:
    """Opens a sample file for a network.

    Args:
        path: The file.
        name: For messages.
        examples: Input name -> tensor that the network takes.

    Raises:
        BadInputError: Names do not fit, there is nothing to hold answers against, or values cannot be used.
    """
    arrays = read_arrays(path)
    answers = {
        key: arrays.pop(key)
        for key in list(arrays)
        if key not in examples and (key == LABELS or key.startswith(TARGET))
    }
    missing, extra = [key for key in examples if key not in arrays], [key for key in arrays if key not in examples]
    if missing or extra:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(extra)}"] if extra else []
        raise BadInputError(
            f"{name}: the arrays do not match the network's inputs: {'; '.join(faults)}",
            hint=f"name them {', '.join(examples)}; plus `labels` for classes, or `target_...` for numbers",
        )
    if not answers:
        raise BadInputError(
            f"{name} holds inputs only: there is nothing to train towards",
            hint="add `labels` [samples] with class numbers, or `target_...` [samples, ...] with numbers",
        )
    counts = {key: len(array) if array.ndim else 0 for key, array in (arrays | answers).items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        numbers = ", ".join(f"{key}: {count}" for key, count in counts.items())
        raise BadInputError(
            f"{name}: the arrays hold different numbers of samples, or none ({numbers})",
            hint="each array needs one row a sample, in the same order",
        )
    for key, array in arrays.items():
        _check_input(name, key, array, examples[key])
    for key, array in (arrays | answers).items():
        _check_finite(name, key, array)
    return Data(
        name=name,
        path=path,
        inputs={key: arrays[key] for key in examples},
        answers=answers,
        dtypes={key: value.dtype for key, value in examples.items()},
        count=next(iter(counts.values())),
    )


def require_same_answers(train: Data, evaluation: Data) -> None:
    """Refuses data that judge by other answers than those that are trained towards."""
    missing = sorted(train.answers.keys() - evaluation.answers.keys())
    if missing:
        raise BadInputError(
            f"{evaluation.name} lacks {', '.join(missing)}, which {train.name} has: nothing there says what is right",
            hint=f"save {', '.join(missing)} in it, in the form of {train.name}",
        )


def require_enough(evaluation: Data) -> None:
    """Refuses a limit that is judged by so few samples that it is kept by chance."""
    if evaluation.count < LEAST_JUDGING:
        raise BadInputError(
            f"{evaluation.name} holds {evaluation.count} samples, of which each is "
            f"{100 / evaluation.count:.3g} points: --max-drop says nothing on so few",
            hint=f"give {LEAST_JUDGING} samples at least to --eval, and some hundreds to see a point",
        )


def require_classes(data: Data) -> None:
    """Refuses labels that are all the same: a network that always gives that answer is right about everything."""
    labels = data.answers[LABELS]
    if labels.min() == labels.max():
        raise BadInputError(
            f"{data.name}: all labels are {int(labels.min())}, which any network learns without looking at its inputs",
            hint="give samples of all classes; a sorted data set is to be shuffled before a part of it is taken",
        )


def count_shared(train: Data, evaluation: Data) -> int:
    """Returns how many samples that judge are among those that train."""
    known = set(train.hash_rows())
    return sum(row in known for row in evaluation.hash_rows())


def _check_input(name: str, key: str, array: Array, example: Any) -> None:
    wanted = "float" if example.is_floating_point() else "whole numbers"
    kinds = "f" if example.is_floating_point() else "iub"
    if array.dtype.kind not in kinds:
        raise BadInputError(
            f"{name}: {key} is {array.dtype}, the network takes {example.dtype} ({wanted})",
            hint=f"convert it before saving: {key}.astype('{str(example.dtype).removeprefix('torch.')}')",
        )
    if array.ndim != example.dim():
        raise BadInputError(
            f"{name}: {key} has the shape {list(array.shape)}, the network takes {list(example.shape)}",
            hint=f"save it as [samples, {', '.join(map(str, example.shape[1:]))}]",
        )


def _check_finite(name: str, key: str, array: Array) -> None:
    """Reads an array of floats once, block by block."""
    if array.dtype.kind != "f" or not array.size:
        return
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(array[start : start + rows].astype(np.float32, copy=False))
        if not finite.all():
            row = start + int(np.argwhere(~finite)[0][0])
            raise BadInputError(
                f"{name}: {key} holds NaN or infinity, first in row {row}",
                hint="one of them makes all weights NaN: take the sample out, or fill in what is missing",
            )
