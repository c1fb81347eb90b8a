"""PyTorch sources: a factory's module or a saved `torch.export` program, exported by `torch.onnx` with dynamo."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.core.errors import BadInputError, BuildFailedError, ToolchainMissingError
from modelwright.core.sample_store import load_function
from modelwright.core.samples import Array

if TYPE_CHECKING:
    import torch

OPSET = 18
"""The first that dynamo's exporter writes by itself: newer ones are converted and gain nothing for these targets, and
TFLite's converter knows it best."""
_BATCH = "batch"
_EXTERNAL_OVER_BYTES = 1_800_000_000
"""Protobuf ends at 2 GB; weights over this go into a file beside the model."""


@dataclass
class Program:
    """A PyTorch program with named inputs.

    Attributes:
        module: What is exported: an `nn.Module` or an `ExportedProgram`.
        call: What runs it.
        input_names: In the order of `call`'s arguments.
        examples: One tensor an input.
        output_names: Given by the module's `output_names`, or None.
        is_saved: Whether it is an `ExportedProgram`, whose shapes are settled.
    """

    module: Any
    call: Any
    input_names: list[str]
    examples: list[torch.Tensor]
    output_names: list[str] | None
    is_saved: bool

    @property
    def example_feeds(self) -> dict[str, Array]:
        """The example inputs as arrays."""
        return {name: value.numpy() for name, value in zip(self.input_names, self.examples, strict=True)}

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs it in eager mode; returns the outputs, flattened, in order."""
        import torch
        from torch.utils import _pytree

        with torch.no_grad():
            outputs = self.call(*(torch.from_numpy(np.array(feeds[name])) for name in self.input_names))
        leaves = [leaf for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
        return [leaf.detach().numpy() for leaf in leaves]

    def export(self, out: Path) -> list[str]:
        """Writes the ONNX model, with a dynamic batch where the program allows it; returns notes.

        Raises:
            BuildFailedError: `torch.onnx.export` fails; its words are in the detail.
        """
        if self.is_saved:
            self._export(out, None)
            name_batch(out)
            return []
        try:
            self._export(out, self._dynamic_batch())
        except Exception as error:  # torch.export raises what its tracing meets
            out.unlink(missing_ok=True)
            self.examples = [value[:1] if value.ndim else value for value in self.examples]
            try:
                self._export(out, None)
            except Exception as second:
                raise BuildFailedError(
                    f"torch.onnx.export fails: {type(second).__name__}: {_first_line(second)}",
                    hint="the first operation that cannot be traced is in the text above",
                    detail=str(second)[-4000:],
                ) from second
            return [f"the batch is fixed at 1: with a dynamic one torch.export fails ({_first_line(error)})"]
        return []

    def _export(self, out: Path, dynamic_shapes: Any) -> None:
        import torch

        weights = sum(p.numel() * p.element_size() for p in self.module.state_dict().values())
        torch.onnx.export(
            self.module,
            tuple(self.examples),
            str(out),
            dynamo=True,
            input_names=self.input_names,
            output_names=self.output_names,
            opset_version=OPSET,
            dynamic_shapes=dynamic_shapes,
            external_data=weights > _EXTERNAL_OVER_BYTES,
            verbose=False,
        )

    def _dynamic_batch(self) -> tuple[dict[int, Any], ...]:
        import torch

        batch = torch.export.Dim(_BATCH)
        # An example batch of 1 would be taken for a constant.
        self.examples = [torch.cat([v, v]) if v.ndim and v.shape[0] == 1 else v for v in self.examples]
        return tuple({0: batch} if value.ndim else {} for value in self.examples)


def load_factory(path: Path, function: str, arrays: Mapping[str, Array] | None) -> Program:
    """Calls `file.py:function`, which returns an `nn.Module`, or that and example inputs (a tuple or a dict).

    Args:
        path: The file.
        function: The factory's name.
        arrays: Samples by input name, for a factory that gives no example inputs.

    Raises:
        BadInputError: The factory fails or returns something else.
    """
    torch = _import_torch()
    factory = load_function(path, function)
    try:
        made = factory()
    except Exception as error:
        raise BadInputError(f"{path}:{function}() failed: {type(error).__name__}: {error}") from error
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise BadInputError(
            f"{path}:{function} returned {type(module).__name__}, not an nn.Module",
            hint="return the module, or (module, example_inputs)",
        )
    module.eval()
    names, tensors = _name_examples(module, examples, arrays, f"{path}:{function}")
    output_names = getattr(module, "output_names", None)
    return Program(
        module=module,
        call=module,
        input_names=names,
        examples=tensors,
        output_names=None if output_names is None else list(output_names),
        is_saved=False,
    )


def load_program(path: Path) -> Program:
    """Loads a program saved by `torch.export.save`.

    Raises:
        BadInputError: It is not one, or holds no example inputs.
    """
    torch = _import_torch()
    try:
        program = torch.export.load(str(path))
    except Exception as error:
        raise BadInputError(
            f"{path} is not a saved torch.export program: {_first_line(error)}",
            hint="save it with torch.export.save(torch.export.export(module, args), 'model.pt2')",
        ) from error
    positional, named = program.example_inputs or ((), {})
    if named:
        raise BadInputError(f"{path} takes keyword inputs", hint="export it again with positional inputs")
    return Program(
        module=program,
        call=program.module(),
        input_names=[str(name) for name in program.graph_signature.user_inputs],
        examples=list(positional),
        output_names=None,
        is_saved=True,
    )


def name_batch(path: Path) -> None:
    """Renames a symbol that is the first dimension of every input to `batch`, wherever it stands."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    firsts = {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input}
    if len(firsts) != 1 or "" in firsts or _BATCH in firsts:
        return
    symbol = firsts.pop()
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == symbol:
                dimension.dim_param = _BATCH
    onnx.save(model, str(path))


def _name_examples(
    module: Any, examples: Any, arrays: Mapping[str, Array] | None, where: str
) -> tuple[list[str], list[torch.Tensor]]:
    """Returns input names, from forward's arguments, and one example tensor an input."""
    import torch

    parameters = [name for name in inspect.signature(module.forward).parameters if name not in ("args", "kwargs")]
    if isinstance(examples, Mapping):
        unknown = [name for name in examples if name not in parameters]
        if unknown:
            raise BadInputError(f"{where}: forward has no argument {', '.join(unknown)}; it has {parameters}")
        examples = {name: examples[name] for name in parameters if name in examples}
        names, values = list(examples), list(examples.values())
        if names != parameters[: len(names)]:
            raise BadInputError(f"{where}: example inputs {names} leave out arguments before them: {parameters}")
    elif isinstance(examples, torch.Tensor):
        names, values = parameters[:1], [examples]
    elif isinstance(examples, Sequence):
        names, values = parameters[: len(examples)], list(examples)
    elif arrays is not None:
        names = [name for name in parameters if name in arrays]
        if not names:
            raise BadInputError(
                f"{where}: none of the samples' arrays ({', '.join(arrays)}) is an argument of forward ({parameters})",
                hint="name the arrays as forward's arguments, or return (module, example_inputs) from the factory",
            )
        values = [torch.from_numpy(np.array(arrays[name][:2])) for name in names]
    else:
        raise BadInputError(f"{where} gives no example inputs", hint="return (module, example_inputs), or give samples")
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise BadInputError(f"{where}: example inputs must be tensors")
    return names, values


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ToolchainMissingError("PyTorch is not installed", hint="pip install 'modelwright[torch]'") from error
    return torch


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
