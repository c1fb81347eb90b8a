"""The steps of a conversion, each from a request to a result, both in JSON values.

`convert` turns ONNX into an FP32 file, `quantize` that file into others of another precision. What to try and what to
take is decided by the tool.
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recipes import Rule
from .ends import find_ends
from .inspect_file import describe_file
from .noise import measure_noise
from .operators import UnsupportedOperatorError
from .originals import adopt_names, restore_weights
from .outline import outline_graph
from .quantize import Ranges, collect_ranges, load_ranges, make_file, read_table_ranges, save_ranges
from .samples import Samples
from .trials import measure_times, run_samples
from .twin import BatchPinnedError

if TYPE_CHECKING:
    from .lower import Lowered

_PACKAGES = ("onnx2tf", "ai-edge-quantizer", "ai-edge-litert", "onnx", "numpy")

Progress = Callable[[str], None]


class ConversionError(Exception):
    """The converted file is not what was asked for."""


def convert(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Converts ONNX to an FP32 file.

    Args:
        request: `onnx` (path), `output` (folder), `file` (its name there), `shapes` (input name -> shape of one feed),
            `resizes` (whether to try for a file whose batch can be chosen at run time), `splits_batch` (whether a file
            without may be given batches, which it runs one sample at a time), `infinities` (whether minus infinity has
            to stay infinite), `like` (path of a file of the same graph, whose names are taken) and, for a file whose
            sizes can be chosen too, `others` (as `shapes`, with other sizes); the result is then `pinned`, and why,
            where that is not possible.
        progress: Takes a line about what is going on.
    """
    import onnx

    from .lower import lower, lower_sizable  # with onnx2tf, which the other steps need not wait for

    output = Path(request["output"])
    shapes = {name: tuple(shape) for name, shape in request["shapes"].items()}
    counts = all(shape[:1] == (1,) for shape in shapes.values())
    resizes = bool(request["resizes"]) and counts
    others = {name: tuple(shape) for name, shape in (request.get("others") or {}).items()}
    progress("converting ONNX to TFLite")
    model = onnx.load(request["onnx"])
    with tempfile.TemporaryDirectory(dir=output) as work:
        infinities = bool(request["infinities"])
        if others:
            try:
                lowered = lower_sizable(model, shapes, others, Path(work), infinities=infinities)
            except (BatchPinnedError, UnsupportedOperatorError) as error:
                return {"pinned": str(error)}
        else:
            lowered = lower(model, shapes, Path(work), resizes=resizes, infinities=infinities)
    if request.get("like"):
        lowered.data = adopt_names(lowered.data, Path(request["like"]).read_bytes())
    _complete_binding(lowered, splits_batch=bool(request["splits_batch"]) and counts)
    Path(output, request["file"]).write_bytes(lowered.data)
    return {
        "file": request["file"],
        "binding": lowered.binding,
        "recipe": {"converter": "onnx2tf flatbuffer_direct", **describe_file(lowered.data)},
        "has_infinities": lowered.has_infinities,
        "notes": lowered.notes,
        "versions": _versions(),
    }


def _complete_binding(lowered: Lowered, *, splits_batch: bool) -> None:
    """Adds what can only be read from the file: the tensors' positions, and whether it keeps state."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=lowered.data)
    for kind, details in (
        ("inputs", interpreter.get_input_details()),
        ("outputs", interpreter.get_output_details()),
    ):
        positions = {detail["name"]: position for position, detail in enumerate(details)}
        for entry in lowered.binding[kind]:
            if entry["tensor"] not in positions:
                raise ConversionError(f"{kind[:-1]} {entry['name']} is not in the converted file")
            entry["position"] = positions[entry["tensor"]]
    lowered.binding["reset_variables"] = describe_file(lowered.data)["keeps_state"]
    lowered.binding["splits_batch"] = splits_batch and not lowered.binding["dynamic_batch"]


def calibrate(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Measures what quantizing needs to know of the FP32 file, and keeps it for the steps that follow.

    Args:
        request: `fp32` (path), `binding`, `output` (folder), `samples` (see `Samples`; None where there are none) and
            `fixed` (whether activations get fixed scales: else only the ranges of lookup tables are looked for).
        progress: Takes a line about what is going on.

    Returns:
        `ranges` (path, for `quantize`), `has_tables`, `layers` (from `measure_noise`; none without samples), `ends`
        (from `find_ends`) and `outline` (from `outline_graph`).
    """
    data = Path(request["fp32"]).read_bytes()
    ranges, layers = read_table_ranges(data), []
    has_tables = bool(ranges)
    if request["samples"] is not None:
        samples = Samples(request["samples"])
        names = {entry["name"]: entry["tensor"] for entry in request["binding"]["inputs"]}
        if request["fixed"]:
            progress(f"calibrating on {samples.count} samples")
            ranges = collect_ranges(data, names, samples, progress)
        layers = measure_noise(data, names, samples, ranges if request["fixed"] else None)
    file = Path(request["output"], "ranges.json")
    save_ranges(file, ranges)
    return {
        "ranges": str(file),
        "has_tables": has_tables,
        "layers": layers,
        "ends": find_ends(data),
        "outline": outline_graph(data),
    }


def quantize(request: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Makes files of another precision.

    Args:
        request: `ranges` (path from `calibrate`, or None) and `orders`: for each file `fp32` (path of what it is made
            from), `unrounded` (path of the float file, where that is another), `file` (path to write), `rules`,
            `dynamic` and `float` (names of operators, by their outputs' tensors); see `make_file`.
        _progress: Not needed: each file takes a moment.

    Returns:
        `made`: for each order what the file really holds (`describe_file`) and its `outline` (`outline_graph`), or
        `failed` (why there is none).
    """
    ranges = load_ranges(Path(request["ranges"])) if request.get("ranges") else {}
    return {"made": [_make(order, ranges) for order in request["orders"]], "versions": _versions()}


def _make(order: Mapping[str, Any], ranges: Ranges) -> dict[str, Any]:
    data = Path(order["fp32"]).read_bytes()
    if order["unrounded"] is not None and order["float"]:
        data = restore_weights(data, Path(order["unrounded"]).read_bytes(), order["float"])
    rules = [Rule(**{**rule, "operators": tuple(rule["operators"])}) for rule in order["rules"]]
    dynamic, left = ([f"^{re.escape(name)}(;|$)" for name in order[kind]] for kind in ("dynamic", "float"))
    try:
        made = make_file(data, rules, dynamic, left, ranges)
    except Exception as error:  # AEQ raises all kinds of errors for graphs that it cannot take
        return {"failed": f"{type(error).__name__}: {error}"}
    if made == data:
        return {"failed": None}
    Path(order["file"]).write_bytes(made)
    return {**describe_file(made), "outline": outline_graph(made)}


def run(request: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Runs a file on samples, for a tool whose own Python has no TFLite runtime.

    Args:
        request: `file` (path), `binding`, `samples` (see `Samples`) and `output` (folder).
        _progress: Not needed.

    Returns:
        `outputs`: name -> path of a `.npy`, [count, *output shape].
    """
    rows = run_samples(Path(request["file"]), request["binding"], Samples(request["samples"]))
    outputs = {}
    for position, name in enumerate(rows[0]):
        path = Path(request["output"], f"output-{position}.npy")
        np.save(path, np.stack([row[name] for row in rows]))
        outputs[name] = str(path)
    return {"outputs": outputs}


def measure(request: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    """Times files in turns with each other.

    Args:
        request: `files` (paths), `bindings`, `samples` (see `Samples`), of which the first is the input, and `rounds`.
        _progress: Not needed.

    Returns:
        `cpu_ms`: a row a round, with each file's time.
    """
    files = [(Path(file), binding) for file, binding in zip(request["files"], request["bindings"], strict=True)]
    feeds = next(Samples(request["samples"]).feeds(1))
    return {"cpu_ms": measure_times(files, feeds, int(request["rounds"]))}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
