"""Runs a saved program no slower than the module that it came from, so that eager mode is an honest "before".

A program calls operators through `torch.ops`, whose arguments are parsed anew at every call, and looks its weights up
through nested modules: on the example 1.4 times the time of the user's own module, and speed-ups over it would be as
much too large. Here it calls torch's Python functions, as a user's code does, and holds its weights itself: 0.7 times,
because no modules call each other. Speed-ups over it are rather too small than too large.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.core.records.signature import Signature

_TOLERANCE = 1e-3
"""Of the norm: kernels on a GPU may sum in another order; a function that is another operator's differs by far more."""


def make_examples(
    torch: Any, signature: Signature, shapes: Mapping[str, Sequence[int]], device: str
) -> list[Any] | None:
    """Returns inputs of these shapes on a device: random numbers, zeros where they are indices.

    Args:
        torch: The package.
        signature: Names and dtypes of the inputs, whose order is kept.
        shapes: Input name -> shape, batch dimension included.
        device: `cpu` or `cuda`.

    Returns:
        One tensor an input, uniform in [0, 1) where it is float; None unless every input has a shape.
    """
    if set(shapes) != {spec.name for spec in signature.inputs}:
        return None
    examples = []
    for spec in signature.inputs:
        zeros = torch.zeros(tuple(shapes[spec.name]), dtype=getattr(torch, spec.dtype), device=device)
        examples.append(torch.rand_like(zeros) if zeros.is_floating_point() else zeros)
    return examples


def restore_eager_speed(torch: Any, module: Any, examples: Sequence[Any] | None) -> tuple[Any, str]:
    """Returns a module that computes the same with a user's overhead, and what was done.

    Args:
        torch: The package.
        module: A `torch.fx.GraphModule` that takes tensors and returns a sequence of them.
        examples: Inputs to compare the two on; without any the module stays as it is.

    Returns:
        The quick module and `torch's Python functions`; or the one given and why it stayed.
    """
    if examples is None:
        return module, "torch.ops: no shapes are known to compare on"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the given module runs parts of torch that torch has deprecated
            quick = _rewrite(torch, module)
            expected, found = module(*examples), quick(*examples)
    except Exception as error:  # a function that takes other arguments than its operator
        return module, f"torch.ops: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    same = len(expected) == len(found) and all(map(_are_close, expected, found))
    return (quick, "torch's Python functions") if same else (module, "torch.ops: the results differed")


def _are_close(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    difference = one.double().nan_to_num() - other.double().nan_to_num()
    return bool(difference.norm() <= _TOLERANCE * one.double().nan_to_num().norm())


def _rewrite(torch: Any, module: Any) -> Any:
    graph = copy.deepcopy(module.graph)
    # Inputs and outputs are flat already: nothing is to be packed or unpacked.
    graph.set_codegen(torch.fx.graph.CodeGen())
    quick = torch.fx.GraphModule(module, graph)
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            name = names.setdefault(node.target, f"held_{len(names)}")
            # Past the module's own bookkeeping: a plain attribute is found at once.
            quick.__dict__[name] = _find(module, node.target)
            node.target = name
        elif node.op == "call_function":
            node.target = _find_function(torch, node.target)
    quick.recompile()
    return quick


def _find(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _find_function(torch: Any, operator: Any) -> Any:
    """Returns the Python function of an ATen operator, which takes the same arguments; else the operator."""
    if not isinstance(operator, torch._ops.OpOverload) or operator.namespace != "aten":  # noqa: SLF001
        return operator
    name = operator._schema.name.partition("::")[2]  # noqa: SLF001 - torch has no public name for it
    for home in (torch._C._nn, torch._C._VariableFunctions, torch._C.TensorBase):  # noqa: SLF001
        function = getattr(home, name, None)
        if function is not None:
            return function
    return operator
