"""What a converted file answers, from here or, where no TFLite runtime is, from the converter's environment."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.scratch import scratch_directory
from modelwright.targets.contract import Array, Feeds
from modelwright.targets.tflite import client
from modelwright.targets.tflite.samples import store_rows

Outputs = Mapping[str, Array]
RUNTIME = "ai_edge_litert"
"""What runs the files here."""


def answer(
    file: Path, binding: Mapping[str, Any], feeds: Iterable[Feeds], progress: Callable[[str], None]
) -> Iterator[Outputs]:
    """Runs a file on one feed after the other.

    Args:
        file: A `.tflite` file.
        binding: What the converter's result says about it.
        feeds: Of one shape each, where the converter's environment has to run it.
        progress: Takes a line about what is going on.

    Raises:
        BuildFailedError: The runtime does not take the file.
    """
    if importlib.util.find_spec(RUNTIME) is None:
        yield from _answer_in_converter(file, binding, list(feeds), progress)
        return
    from modelwright.targets.tflite.session import TfliteRunner

    try:
        runner = TfliteRunner(file, binding)
        for inputs in feeds:
            yield runner.run(inputs)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BuildFailedError(f"TFLite cannot run what was made: {first}", detail=str(error)) from error


def answer_in_batches(
    run: Callable[[Iterable[Feeds]], Iterable[Outputs]], feeds: Iterable[Feeds], size: int
) -> Iterator[Outputs]:
    """Runs several samples as one inference, and gives each its part of the outputs.

    Args:
        run: Takes feeds and gives their outputs.
        feeds: One sample each; only full batches are run.
        size: Samples a batch.
    """
    rows = list(feeds)
    starts = range(0, len(rows) - size + 1, size)
    for outputs in run([_join(rows[start : start + size]) for start in starts]):
        parts = {name: _split(value, size) for name, value in outputs.items()}
        yield from ({name: part[row] for name, part in parts.items()} for row in range(size))


def _join(rows: Sequence[Feeds]) -> Feeds:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _split(value: Array, size: int) -> list[Array]:
    """Returns each sample's part; an output that has none belongs to all of them."""
    if value.ndim and value.shape[0] and value.shape[0] % size == 0:
        return np.split(value, size)
    return [value] * size


def _answer_in_converter(
    file: Path, binding: Mapping[str, Any], feeds: Sequence[Feeds], progress: Callable[[str], None]
) -> Iterator[Outputs]:
    with scratch_directory() as folder:
        order = {
            "action": "run",
            "file": str(file),
            "binding": binding,
            "samples": store_rows(feeds, len(feeds), Path(folder)),
            "output": folder,
        }
        paths = client.run_step(order, progress)["outputs"]
        outputs = {name: np.load(path) for name, path in paths.items()}
    for number in range(len(feeds)):
        yield {name: array[number] for name, array in outputs.items()}
