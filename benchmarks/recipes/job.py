"""What a recipe is given: `python -m recipes.NAME JOB.json`, in the peer's own environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One way to quantize one model.

    Attributes:
        recipe: One of the module's ways, by the name that it has there.
        model: The FP32 ONNX file.
        out: A folder that is there and empty; the result goes into it.
        archive: The `.npz` with all samples.
        samples: All inputs that may be calibrated on, one sample each, batch dimension of 1 included.
        labels: Of the samples; None where there are none.
        threads: For the work.
    """

    recipe: str
    model: Path
    out: Path
    archive: Path
    samples: Sequence[Feeds]
    labels: Array | None
    threads: int


def read_job() -> Job:
    """Reads the file that the first argument names."""
    values = json.loads(Path(sys.argv[1]).read_text())
    arrays = dict(np.load(values["samples"]))
    labels = arrays.pop("labels", None)
    count = len(next(iter(arrays.values())))
    return Job(
        recipe=values["recipe"],
        model=Path(values["model"]),
        out=Path(values["out"]),
        archive=Path(values["samples"]),
        samples=[{name: array[row : row + 1] for name, array in arrays.items()} for row in range(count)],
        labels=labels,
        threads=values["threads"],
    )


class Reader:
    """The samples as ONNX Runtime's calibration, and what is modelled on it, reads them."""

    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._samples = samples
        self.rewind()

    def get_next(self) -> Feeds | None:
        """Returns the next sample; None after the last."""
        return next(self._left, None)

    def rewind(self) -> None:
        """Starts again."""
        self._left = iter(self._samples)

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> Feeds:
        return next(self._left)
