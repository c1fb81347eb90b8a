"""The inputs that an artifact is timed on, and the FP32 outputs packed with it."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.codec import decode
from modelwright.core.samples.archives import require_sound
from modelwright.core.samples.sample_set import Array, SampleRef, open_samples

_COPIES = 4
"""The samples, the batch made of them, the runtime's own, and as much for what is computed."""
_LEAST_BYTES = 64
"""Of a sample, that it takes to count it."""
ROTATED_INPUTS = 8
"""Different inputs taken in turn, so that no run finds its input in the cache by luck alone."""


def read_inputs(artifact: Artifact, samples: dict[str, Any] | None, batch: int) -> list[dict[str, Array]]:
    """Returns a few different inputs of one inference each, to be taken in turn.

    Args:
        artifact: Whose packed inputs are taken where `samples` is None.
        samples: A `SampleRef` as a dictionary.
        batch: Samples an inference.

    Raises:
        BadInputError: The packed inputs cannot be read, or the samples do not fit.
        MeasurementInvalidError: There are none, or too many for the memory.
    """
    signature = artifact.manifest.signature
    if batch != 1 and not signature.batch_is_dynamic:
        raise MeasurementInvalidError(
            f"{artifact.manifest.target} has a fixed batch: {'; '.join(spec.describe() for spec in signature.inputs)}",
            hint="measure it with --batch 1, or leave it out",
        )
    if samples is None:
        return _read_packed_inputs(artifact, batch)
    opened = open_samples(decode(SampleRef, samples), signature, checked=True)
    if batch == 1:
        return list(opened.feeds(limit=ROTATED_INPUTS))
    require_memory(next(opened.feeds(limit=1)), batch)
    return [
        opened.batch([(first * batch + offset) % opened.count for offset in range(batch)])
        for first in range(min(ROTATED_INPUTS, max(1, opened.count // batch)))
    ]


def require_memory(sample: Mapping[str, Array], batch: int) -> None:
    """Refuses a batch whose inputs alone would take a good part of the memory: they are held several times."""
    needed = batch * max(_LEAST_BYTES, sum(array.nbytes for array in sample.values()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
    if needed * _COPIES > memory:
        raise MeasurementInvalidError(
            f"--batch {batch}: the inputs of one inference would take {needed / 1e9:,.1f} GB, and this machine has "
            f"{memory / 1e9:,.1f} GB",
            hint="give a smaller one, and leave room for what the model computes",
        )


def _read_packed_inputs(artifact: Artifact, batch: int) -> list[dict[str, Array]]:
    path = artifact.reference_path
    if path is None:
        raise MeasurementInvalidError(
            f"{artifact.directory} has no inputs packed with it", hint="give some with --samples"
        )
    arrays = read_reference_file(path)
    rows = [take_reference_row(arrays, index).feeds for index in range(len(next(iter(arrays.values()))))]
    if batch == 1:
        return rows[:ROTATED_INPUTS]
    require_memory(rows[0], batch)
    return [
        {
            name: np.concatenate([rows[(first * batch + offset) % len(rows)][name] for offset in range(batch)])
            for name in rows[0]
        }
        for first in range(min(ROTATED_INPUTS, max(1, len(rows) // batch)))
    ]


def read_reference_file(path: Path) -> dict[str, Array]:
    """Reads the inputs and FP32 outputs packed with an artifact; they are few and small."""
    try:
        with zipfile.ZipFile(path) as archive:
            require_sound(archive)
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint="build the artifact again") from error
    if len({len(array) if array.ndim else 0 for array in arrays.values()} - {0}) != 1:
        raise BadInputError(f"{path} does not hold samples", hint="build the artifact again")
    return arrays


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """One sample packed with an artifact.

    Attributes:
        feeds: Its inputs.
        expected: FP32's answer.
        proved: The artifact's own answer when it was proved; empty where it never was.
    """

    feeds: dict[str, Array]
    expected: dict[str, Array]
    proved: dict[str, Array]


def take_reference_row(arrays: dict[str, Array], index: int) -> PackedRow:
    """Returns one packed sample."""
    kinds: dict[str, dict[str, Array]] = {"input": {}, "output": {}, "proved": {}}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind in kinds:
            kinds[kind][name] = array[index]
    feeds = {name: np.asarray(value, order="C") for name, value in kinds["input"].items()}
    return PackedRow(feeds=feeds, expected=kinds["output"], proved=kinds["proved"])
