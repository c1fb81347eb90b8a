"""Lowering a captured PyTorch program to FP16 or BF16, with every cast written into its graph.

Matrix products and convolutions take and give the low precision, and so do operations between them that lose nothing
by it. All others get float32, as they were captured: what adds a mask of -3.4e38, divides by a count clamped at 1e-9,
or casts on purpose, breaks in FP16. Neither `module.half()` knows that of a captured graph, whose dtypes are constants,
nor is `torch.autocast` the same on a CPU and on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

COMPUTE = frozenset(
    {"addbmm", "addmm", "baddbmm", "bilinear", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d"}
    | {"conv_transpose2d", "conv_transpose3d", "convolution", "einsum", "gru", "gru_cell", "linear", "lstm"}
    | {"lstm_cell", "matmul", "mm", "mv", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell"}
    | {"scaled_dot_product_attention"}
)
"""ATen operators, overloads aside, that take and give the low precision."""
ASSERTION = "_assert_tensor_metadata"
_VIEWS = frozenset(
    {"alias", "chunk", "detach", "expand", "flatten", "getitem", "narrow", "numpy_T", "permute", "reshape", "select"}
    | {"slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view"}
)
_FOLLOWERS = _VIEWS | {
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "avg_pool1d", "avg_pool2d", "cat", "clamp", "clone"),
    *("channel_shuffle", "contiguous", "div", "dropout", "elu", "flip", "gelu", "hardsigmoid", "hardswish", "hardtanh"),
    *("leaky_relu", "max_pool1d", "max_pool2d", "mul", "neg", "pixel_shuffle", "pixel_unshuffle", "relu", "relu6"),
    *("repeat", "roll", "sigmoid", "silu", "stack", "sub", "tanh", "upsample_nearest2d"),
}
"""Operators that stay in the low precision where all their tensors are in it."""
_MIXED = frozenset({"batch_norm"})
"""Operators that take an input in the low precision beside float32 statistics, and compute in float32 inside."""
_ALIASING = _VIEWS | {"dropout", "feature_dropout", "alpha_dropout", "contiguous", "to"}
"""Operators whose result may share memory with their input."""
_LEAST_SCALAR, _LARGEST_SCALAR = 1e-3, 1e3
"""Constants outside lose their meaning in FP16: an epsilon becomes zero, a mask infinite."""


class LoweredCall:
    """Runs the nodes of a captured graph one by one, casting as each operator needs it.

    Exported in its turn, it leaves a graph with explicit casts. Dtypes are those that the tensors really have, so no
    rule has to guess what an operator returns.

    Args:
        torch: The package.
        module: The captured program as a `GraphModule`, functional: no node changes a tensor in its place.
        dtype: What compute operators run in; None casts nothing.
    """

    def __init__(self, torch: Any, module: Any, dtype: Any | None) -> None:
        self._torch, self._dtype = torch, dtype
        if dtype is not None:
            _store_weights(torch, module, dtype)
        call = self._call_function

        class Runner(torch.fx.Interpreter):  # type: ignore[misc]  # torch is imported here only
            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                return call(super().call_function, target, args, kwargs)

        self._runner = Runner(module, garbage_collect_values=False)

    def run(self, flat: Sequence[Any]) -> list[Any]:
        """Returns the flat outputs for flat inputs; float outputs are in float32 where they were captured so."""
        output = next(node for node in self._runner.module.graph.nodes if node.op == "output")
        captured = [node.meta.get("val") if hasattr(node, "meta") else None for node in output.args[0]]
        values = self._runner.run(*flat, enable_io_processing=False)
        return [
            value if not self._is_low(value) or was is None else value.to(was.dtype)
            for value, was in zip(values, captured, strict=True)
        ]

    def _call_function(self, run: Callable[..., Any], target: Any, args: Any, kwargs: Any) -> Any:
        name = name_operator(target)
        if name == ASSERTION:  # it holds the dtypes and the device of the capture
            return None
        if self._dtype is None:
            return run(target, args, kwargs)
        torch = self._torch
        if name in COMPUTE:
            if name == "scaled_dot_product_attention":
                args, kwargs = self._bound_mask(args, kwargs)
            args, kwargs = self._cast((args, kwargs), torch.float32, self._dtype)
        elif name not in _MIXED and not (name in _FOLLOWERS and self._may_follow(name, args, kwargs)):
            args, kwargs = self._cast((args, kwargs), self._dtype, torch.float32)
        return run(target, args, kwargs)

    def _may_follow(self, name: str, args: Any, kwargs: Any) -> bool:
        leaves = self._torch.utils._pytree.tree_leaves((args, kwargs))  # noqa: SLF001 - torch has no public name for it
        tensors = [leaf for leaf in leaves if isinstance(leaf, self._torch.Tensor) and leaf.is_floating_point()]
        scalars = [abs(leaf) for leaf in leaves if isinstance(leaf, float) and leaf]
        low = bool(tensors) and all(self._is_low(tensor) for tensor in tensors)
        if name == "div" and len(tensors) > 1:  # a quotient may be as small as its divisor is large
            return False
        return low and all(_LEAST_SCALAR <= scalar <= _LARGEST_SCALAR for scalar in scalars)

    def _cast(self, values: Any, before: Any, after: Any) -> Any:
        def cast(value: Any) -> Any:
            return value.to(after) if isinstance(value, self._torch.Tensor) and value.dtype == before else value

        return self._torch.utils._pytree.tree_map(cast, values)  # noqa: SLF001

    def _bound_mask(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Keeps a float mask finite in the low precision: a row of nothing but -inf would become NaN."""
        least = self._torch.finfo(self._dtype).min

        def bound(mask: Any) -> Any:
            is_float = isinstance(mask, self._torch.Tensor) and mask.is_floating_point()
            return mask.clamp(min=least) if is_float else mask

        position = 3
        if len(args) > position:
            args = (*args[:position], bound(args[position]), *args[position + 1 :])
        return args, kwargs | {name: bound(value) for name, value in kwargs.items() if name == "attn_mask"}

    def _is_low(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor) and self._dtype is not None and value.dtype == self._dtype


def name_operator(target: Any) -> str:
    """Returns an operator's name without namespace and overload: `conv2d`, `getitem`."""
    packet = getattr(target, "_overloadpacket", None)
    return str(getattr(target if packet is None else packet, "__name__", target))


def make_functional(torch: Any, program: Any) -> Any:
    """Returns the program without operators that write into a tensor in its place, as casts would cut them off.

    Plain cases (`relu_` on a result that nothing else shares) are replaced one by one, so that the operators stay those
    that the user wrote; where memory may be shared, torch rewrites the whole program.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if not _writes(node):
            continue
        functional = _find_functional(torch, node)
        if functional is None or _is_shared(node.args[0]):
            return program.run_decompositions({})
        written = node.args[0]
        node.target = functional
        later = _users_after(graph, node, written)
        for user in later:
            user.replace_input_with(written, node)
    graph.lint()
    return program


def drop_assertions(program: Any) -> None:
    """Removes the checks of dtypes and devices from a captured graph: they cost time at every call."""
    for node in list(program.graph.nodes):
        if node.op == "call_function" and name_operator(node.target) == ASSERTION:
            program.graph.erase_node(node)
    program.graph_module.recompile()


def _writes(node: Any) -> bool:
    return node.op == "call_function" and bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _find_functional(torch: Any, node: Any) -> Any | None:
    name = name_operator(node.target)
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    overload = str(getattr(node.target, "_overloadname", "default"))
    return getattr(packet, overload, None)


def _is_shared(node: Any) -> bool:
    """Whether a tensor may share memory with another one: an input, a weight, a view, or one that has views."""
    if node.op != "call_function" or name_operator(node.target).removesuffix("_") in _ALIASING:
        return True
    return any(user.op == "call_function" and name_operator(user.target) in _ALIASING for user in node.users)


def _users_after(graph: Any, node: Any, value: Any) -> list[Any]:
    order = {item: number for number, item in enumerate(graph.nodes)}
    return [user for user in value.users if order[user] > order[node]]


def _store_weights(torch: Any, module: Any, dtype: Any) -> None:
    """Converts those weights that only compute operators read."""
    fetches: dict[int, list[Any]] = {}
    tensors: dict[int, dict[int, Any]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = _fetch(module, node.target)
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                # By memory: a weight may have two names, one of which an embedding reads.
                key = value.untyped_storage().data_ptr()
                fetches.setdefault(key, []).append(node)
                tensors.setdefault(key, {})[id(value)] = value
    for key, nodes in fetches.items():
        if all(_feeds_compute(node) for node in nodes):
            for value in tensors[key].values():
                value.data = value.data.to(dtype)


def _fetch(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _feeds_compute(node: Any) -> bool:
    """Whether a value is read by compute operators only, directly or through views."""
    if not node.users:
        return False
    for user in node.users:
        if user.op != "call_function":
            return False
        name = name_operator(user.target)
        if name not in COMPUTE and not (name in _VIEWS and _feeds_compute(user)):
            return False
    return True


def count_compute(torch: Any, module: Any) -> dict[str, int]:
    """Returns numpy's name of a dtype -> how many compute operators of a captured graph give it."""
    found: Counter[str] = Counter()
    for node in module.graph.nodes:
        if node.op == "call_function" and name_operator(node.target) in COMPUTE:
            leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))  # noqa: SLF001
            first = next((leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), None)
            if first is not None:
                found[name_dtype(first.dtype)] += 1
    return dict(found)


def name_dtype(dtype: Any) -> str:
    """Returns `float16` for `torch.float16`."""
    return str(dtype).removeprefix("torch.")


def count_bytes(tensors: Sequence[Any]) -> dict[str, int]:
    """Returns a dtype's name -> bytes of the tensors in it; memory that two of them share counts once."""
    sizes: Counter[str] = Counter()
    for tensor in {tensor.data_ptr() or id(tensor): tensor for tensor in tensors}.values():
        sizes[name_dtype(tensor.dtype)] += int(np.prod(tensor.shape, dtype=np.int64)) * tensor.element_size()
    return dict(sizes)
