"""A source loaded for training, and what it takes: its inputs' names and shapes. For child processes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.compression.network import make_network
from modelwright.core.files import hash_json
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import encode
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.python_source import load_function, split_function
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters.torch.source import TorchSource, import_torch, load_factory, load_program
from modelwright.exporters.trace import Trace, watch


def load_source(
    kind: str, path: Path, folder: Path, function: str | None, samples: Path | None, *, trust: bool
) -> TorchSource:
    """Loads a program, or calls a factory; the samples give example inputs where it has none."""
    from modelwright.exporters.torch.outputs import plain_outputs

    ref = None if samples is None else SampleRef(path=samples)
    trace = Trace(folder, [] if samples is None else [samples])
    with watch(trace):
        if kind == "pt2":
            return load_program(path, ref, trust=trust)
        assert function is not None
        loaded = load_factory(path, function, ref, trace)
    plain_outputs(import_torch(), loaded)
    return loaded


def load_student(spec: str, samples: Path) -> TorchSource:
    """Calls the factory of a student; its `files` are all that was read for it."""
    from modelwright.exporters.torch.outputs import plain_outputs

    path, function = split_function(spec)
    assert function is not None
    trace = Trace(path.resolve().parent, [samples])
    with watch(trace):
        source = load_factory(path, function, SampleRef(path=samples), trace)
    plain_outputs(import_torch(), source)
    return source


def hash_function(spec: str) -> str:
    """Returns a `file.py:function` as a hash of what running its file reads; other texts as they are."""
    path, function = split_function(spec)
    if function is None:
        return spec
    trace = Trace(path.resolve().parent)
    with watch(trace):
        load_function(path, function)
    return f"{hash_json(trace.list_read())}:{function}"


def describe_in_child(
    kind: str, path: str, folder: str, function: str | None, trust: bool, progress: Progress
) -> dict[str, Any]:
    """Returns the signature of a source, by its own example inputs: what pictures and arrays without names need."""
    progress("loading it for its inputs")
    network = make_network(load_source(kind, Path(path), Path(folder), function, None, trust=trust))
    torch = import_torch()
    network.set_training(training=False)
    with torch.inference_mode():
        answers = network(network.examples)
    outputs = answers if isinstance(answers, list | tuple) else [answers]
    named = zip(network.output_names or map(str, range(len(outputs))), outputs, strict=False)
    signature = Signature(
        inputs=tuple(_describe(name, tensor) for name, tensor in network.examples.items()),
        outputs=tuple(_describe(name, tensor) for name, tensor in named if isinstance(tensor, torch.Tensor)),
    )
    return encode(signature)  # type: ignore[no-any-return]  # a record becomes a dict


def _describe(name: str, tensor: Any) -> TensorSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *map(int, tensor.shape[1:])) if tensor.dim() else ())
