"""PyTorch sources: a factory of the user's or a saved `torch.export` program, with its example inputs.

For child processes only: a factory is the user's own code and is run, and a saved program may be hostile. torch's
reader of programs runs code that it finds in them, in every version so far: what `core/saved_program.py` does not know
for plain data is read only where the user says that its maker is trusted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.files import hash_file
from modelwright.core.program_operators import register_quantized_operators
from modelwright.core.records.codec import decode
from modelwright.core.records.exported import PROGRAM_CALL_FILE, ProgramCall
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.python_source import load_function, shorten_traceback
from modelwright.core.samples.sample_set import LABELS, TARGET, SampleRef
from modelwright.core.saved_program import find_code
from modelwright.core.versions import is_at_least
from modelwright.exporters.trace import Trace

Array = npt.NDArray[Any]

_EXAMPLE_ROWS = 2
"""torch.export specialises a batch of 1, and so makes a dynamic batch of it impossible."""
_MOST_WHOLE = 3
"""Inputs of one module that may be whole in each sample: two states and a mask."""
_LEAST_TORCH = "2.10"
"""Earlier versions could be made to run code by a file of plain tensors."""
_NAMED = 3


@dataclass(kw_only=True)
class TorchSource:
    """A module that can be called and captured.

    Attributes:
        name: For messages.
        module: The network in evaluation mode, FP32, on the CPU; of a program, its module.
        args: Positional example inputs.
        kwargs: Example inputs by name.
        program: The saved `torch.export` program, captured already; None for a factory.
        output_names: Names that the module gives to its outputs, if it does.
        examples_from_samples: Whether the example inputs are the first rows of the samples.
        whole: Inputs that each sample gives as a whole: their first axis is no batch.
        files: Name -> SHA-256 of the code and data that the source was made from.
        weights_sha256: Of the state dict.
        notes: Sentences for the user.
    """

    name: str
    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    program: Any | None = None
    output_names: tuple[str, ...] | None = None
    examples_from_samples: bool = False
    whole: frozenset[str] = frozenset()
    files: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
    notes: list[str] = field(default_factory=list)


def load_factory(path: Path, function: str, samples: SampleRef | None, trace: Trace) -> TorchSource:
    """Calls the user's factory.

    Args:
        path: The Python file.
        function: Returns an `nn.Module`, or it and its example inputs: a tensor, a tuple, or a dict by name. A module
            of that name serves too.
        samples: Where example inputs come from when the factory gives none.
        trace: Watches this process, and knows what the factory read.

    Raises:
        BadInputError: The factory failed or returned something else, or there are no example inputs.
    """
    if importlib.util.find_spec("torch") is None:
        import_torch()  # says what is missing better than the user's own import does
    name = f"{path.name}:{function}"
    factory = load_function(path, function)
    try:
        made = factory if _is_module(factory) else factory()
    except (Exception, SystemExit) as error:
        raise BadInputError(
            f"{name} failed: {type(error).__name__}: {error}",
            hint=f"make {name} run by itself first; it is called in the folder that you are in"
            if _takes_nothing(factory)
            else f"it is called without arguments: give all parameters of {function} a default",
            detail=shorten_traceback(error),
        ) from error
    torch = import_torch()
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise BadInputError(
            f"{name} returned {type(made).__name__}, not an nn.Module",
            hint="return the module, or (module, example_inputs), with a tuple or a dict of tensors",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise BadInputError(
            f"{name} gives a TorchScript module, whose Python code is gone: torch.export cannot capture it",
            hint="give the nn.Module that it was scripted or traced from",
        )
    if any(torch.nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise BadInputError(
            f"{name} gives a module with lazy layers, whose weights have no shapes before it was called",
            hint="call it in the factory, on inputs such as it will get, and load its weights after that",
        )
    source = TorchSource(name=name, module=module, args=(), kwargs={}, files=trace.list_read())
    _make_fp32(torch, source)
    names = getattr(module, "output_names", None)
    if names is not None:
        source.output_names = (names,) if isinstance(names, str) else tuple(str(item) for item in names)
    if examples is None:
        if samples is None:
            raise BadInputError(
                f"{name} gives no example inputs, and there are no samples to take them from",
                hint="return (module, example_inputs) from it, or add --samples with the names of its inputs; for "
                "pictures say input and size: --preprocess ...,input=NAME,size=224",
            )
        examples, source.whole = _take_examples(torch, name, module, samples)
        source.examples_from_samples = True
    source.args, source.kwargs = _bind_examples(torch, name, module, examples)
    source.weights_sha256 = hash_state(module.state_dict())
    return source


def load_program(path: Path, samples: SampleRef | None, *, trust: bool) -> TorchSource:
    """Loads a program that `torch.export.save` wrote.

    Args:
        path: The program.
        samples: Where example inputs come from when the program has none.
        trust: Whether code in it may run.

    Raises:
        BadInputError: Not such a program, damaged, without example inputs, or with code in it that is not trusted.
        ToolchainMissingError: torch is too old to read programs that are plain data.
    """
    found = [] if trust else find_code(path)
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise BadInputError(
            f"{path} holds what may run code when torch reads it: {', '.join(found[:_NAMED])}{more}",
            hint="add --trust if you trust who made it; or give the FILE.py:FUNCTION that it was made from",
        )
    torch = import_torch()
    if not is_at_least(torch.__version__, _LEAST_TORCH):
        raise ToolchainMissingError(
            f"torch {torch.__version__} reads saved programs unsafely", hint=f"pip install 'torch>={_LEAST_TORCH}'"
        )
    try:
        register_quantized_operators()
        call = {PROGRAM_CALL_FILE: ""}
        program = torch.export.load(str(path), extra_files=call)
    except Exception as error:  # zip, JSON, pickle and schema errors
        raise BadInputError(
            f"{path} cannot be read as a saved torch.export program: {_first_line(error)}",
            hint="save it again with torch.export.save(program, path) and a torch that is not newer than this one "
            f"({torch.__version__})",
        ) from error
    source = TorchSource(name=path.name, module=program.module(), args=(), kwargs={}, program=program)
    source.files = {path.name: hash_file(path)}
    source.weights_sha256 = hash_state(program.state_dict)
    source.output_names = _read_output_names(path, call[PROGRAM_CALL_FILE])
    if program.example_inputs is not None:
        source.args, source.kwargs = tuple(program.example_inputs[0]), dict(program.example_inputs[1])
    elif samples is not None:
        source.args, source.kwargs = _take_program_examples(torch, program, path.name, samples)
    else:
        raise BadInputError(
            f"{path} was saved without example inputs, and there are no samples",
            hint="add --samples with the names of its inputs; for pictures say input and size: --preprocess "
            "...,input=NAME,size=224",
        )
    return source


def _read_output_names(path: Path, call: str | bytes) -> tuple[str, ...] | None:
    """Returns the names of outputs that a program of ours says; None for other programs."""
    if not call:
        return None
    try:
        places = decode(ProgramCall, json.loads(call), where=f"{path}: {PROGRAM_CALL_FILE}").outputs
    except ValueError as error:
        raise BadInputError(f"{path}: {PROGRAM_CALL_FILE} in it is no JSON: {error}") from error
    return tuple(sorted(places, key=lambda name: places[name])) or None


def import_torch() -> Any:
    """Imports torch.

    Raises:
        ToolchainMissingError: Absent, or installed but broken.
    """
    try:
        import torch
        import torch.export
        import torch.onnx
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"Python package {error.name} is not installed; PyTorch sources need it",
            hint="pip install 'torch>=2.10' 'onnxscript>=0.6'",
        ) from error
    except Exception as error:  # a vendor's import can raise anything
        raise ToolchainMissingError("torch is installed but does not import", detail=str(error)) from error
    return torch


def hash_state(state: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a state dict: names, dtypes, shapes and bytes, in the order of the names."""
    torch = import_torch()
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _takes_nothing(function: Any) -> bool:
    """Whether a function can be called without arguments, as far as it tells."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        return True
    return True


def _is_module(value: Any) -> bool:
    return isinstance(value, import_torch().nn.Module)


def _make_fp32(torch: Any, source: TorchSource) -> None:
    tensors = [*source.module.parameters(), *source.module.buffers()]
    other = sorted({str(t.dtype) for t in tensors if t.is_floating_point() and t.dtype != torch.float32})
    if other:
        source.notes.append(f"{source.name} has weights in {', '.join(other)}; they were converted to float32")
        source.module.float()
    source.module.to("cpu").eval().requires_grad_(requires_grad=False)


def _bind_examples(torch: Any, name: str, module: Any, examples: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Puts example inputs under the names of forward's parameters, in their order, wherever they have names."""
    if isinstance(examples, Mapping):
        args, kwargs = (), {str(key): _to_tensor(torch, value) for key, value in examples.items()}
    else:
        items = tuple(examples) if isinstance(examples, list | tuple) else (examples,)
        args, kwargs = tuple(_to_tensor(torch, value) for value in items), {}
    try:
        signature = inspect.signature(module.forward)
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadInputError(
            f"the example inputs of {name} do not fit forward{inspect.signature(module.forward)}: {error}",
            hint="give a tuple in the order of forward's parameters, or a dict by their names",
        ) from error
    kinds = {signature.parameters[key].kind for key in bound.arguments}
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return ((), dict(bound.arguments)) if kinds <= by_name else (bound.args, bound.kwargs)


_Reading = tuple[dict[str, Any], frozenset[str]]
"""Example inputs, and which of them are one sample's as a whole."""


def _take_examples(torch: Any, name: str, module: Any, samples: SampleRef) -> _Reading:
    parameters = inspect.signature(module.forward).parameters.values()
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [parameter for parameter in parameters if parameter.kind not in fixed]
    required = [parameter.name for parameter in wanted if parameter.default is inspect.Parameter.empty]
    rows = take_rows(samples, required, name, optional=[parameter.name for parameter in wanted])
    examples = {key: _to_tensor(torch, value) for key, value in rows.items()}
    # Samples with an axis of size 1, as grey images have, and whole inputs with a batch of 1, stacked, look alike; and
    # a recurrent state has its batch on another axis. What the module takes decides.
    readings: tuple[_Reading, ...] = ((examples, frozenset()), *_list_other_examples(examples))
    return next((reading for reading in readings if _is_taken(torch, module, reading[0])), readings[0])


def _take_program_examples(
    torch: Any, program: Any, name: str, samples: SampleRef
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the first rows of the samples as the program was called: by position, by name, and in structures."""
    signature = torch.export.graph_signature
    specs = program.graph_signature.input_specs
    arguments = [spec.arg for spec in specs if spec.kind == signature.InputKind.USER_INPUT]
    constants = {each.name: each.value for each in arguments if isinstance(each, signature.ConstantArgument)}
    rows = take_rows(samples, [each.name for each in arguments if each.name not in constants], name)
    leaves = [
        constants[each.name] if each.name in constants else _to_tensor(torch, rows[each.name]) for each in arguments
    ]
    args, kwargs = torch.utils._pytree.tree_unflatten(leaves, program.call_spec.in_spec)  # noqa: SLF001
    return tuple(args), dict(kwargs)


def _is_taken(torch: Any, module: Any, examples: Mapping[str, Any]) -> bool:
    try:
        with torch.no_grad():
            module(**examples)
    except Exception:  # what a module raises for a wrong rank is its own affair
        return False
    return True


def _list_other_examples(examples: Mapping[str, Any]) -> Iterator[_Reading]:
    """Yields other readings of stacked samples: without the batch in each, then one sample, whole or as a row."""
    names = [name for name, value in examples.items() if value.ndim > 1]
    if all(name in names and value.shape[1] == 1 for name, value in examples.items()):
        yield {name: value[:, 0] for name, value in examples.items()}, frozenset()
    for count in range(1, min(len(names) - 1, _MOST_WHOLE) + 1):
        for whole in itertools.combinations(names, count):
            taken = {name: value[0] if name in whole else value[:1] for name, value in examples.items()}
            yield taken, frozenset(whole)


def take_rows(samples: SampleRef, required: Sequence[str], name: str, optional: Sequence[str] = ()) -> dict[str, Array]:
    """Returns the first two samples as one batch, by input name; a single one is taken twice."""
    arrays = read_arrays(samples.path)
    missing = [key for key in required if key not in arrays]
    known = {*required, *optional, LABELS}
    unknown = [key for key in arrays if key not in known and not key.startswith(TARGET)]
    if missing or unknown:
        raise BadInputError(
            f"{samples.path}: the arrays {', '.join(arrays)} do not match the inputs of {name}: {', '.join(required)}",
            hint="name the arrays after the parameters of the module's forward",
        )
    rows = {}
    for key in [*required, *(key for key in optional if key in arrays and key not in required)]:
        part = np.array(arrays[key][:_EXAMPLE_ROWS])
        rows[key] = part if len(part) == _EXAMPLE_ROWS else np.repeat(part, _EXAMPLE_ROWS, axis=0)
    return rows


def _to_tensor(torch: Any, value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.array(value))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
    if isinstance(value, list | tuple):
        return type(value)(_to_tensor(torch, item) for item in value)
    return value


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
