"""Samples for the converter's environment: files that it maps, as `converter/samples.py` reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.mapped import create_mapped
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Feeds


def store_samples(samples: SampleSet | None, folder: Path, *, limit: int | None = None) -> dict[str, str] | None:
    """Writes samples as the converter reads them: a `.npy` an input.

    Args:
        samples: None gives None.
        folder: To write into.
        limit: Write no more samples than these.
    """
    if samples is None:
        return None
    count = min(samples.count, limit or samples.count)
    return store_rows(samples.feeds(count), count, folder)


def store_rows(rows: Iterable[Feeds], count: int, folder: Path) -> dict[str, str] | None:
    """Writes rows of one shape each into one mapped file a name; None when their shapes differ."""
    folder.mkdir(parents=True, exist_ok=True)
    maps: dict[str, Any] = {}
    names: list[str] = []
    for index, row in enumerate(rows):
        if not maps:
            names = list(row)
            for position, name in enumerate(names):
                value = np.asarray(row[name])
                maps[name] = create_mapped(folder / f"{position}.npy", value.dtype, (count, *value.shape))
        if any(np.shape(row[name]) != maps[name].shape[1:] for name in names):
            return None
        for name in names:
            maps[name][index] = row[name]
    return {name: str(folder / f"{position}.npy") for position, name in enumerate(names)}
