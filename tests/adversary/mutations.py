"""Damage to bytes and to JSON values, from a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import Any

import onnx

HOSTILE_NUMBERS: tuple[object, ...] = (
    -1, 0, 2**31, 2**63, 2**64, 10**400, -0.5, 0.5, 1e308, float("nan"), float("inf"), float("-inf"), "1", "", None,
    True, [], {}, [1], {"1": 1},
)  # fmt: skip


def flip_bit(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def damage_graph(data: bytes, generator: random.Random) -> bytes:
    """Returns an ONNX model that parses, with one thing in its graph changed into what no exporter writes."""
    model = onnx.load_from_string(data)
    graph = model.graph
    node, tensor = generator.choice(graph.node), generator.choice(graph.initializer)
    value = generator.choice([*graph.input, *graph.output])
    number = generator.choice([-(2**63), -1, 0, 1, 3, 2**31, 2**62])
    attributes = [one for one in node.attribute if one.ints]

    def replace_dims() -> None:
        tensor.dims[generator.randrange(len(tensor.dims))] = number

    def cut_weights() -> None:
        tensor.raw_data = tensor.raw_data[: generator.randrange(len(tensor.raw_data) + 1)]

    def change_attribute() -> None:
        one = generator.choice(attributes)
        one.ints[generator.randrange(len(one.ints))] = number

    acts: list[Callable[[], object]] = [
        *([replace_dims] if tensor.dims else []),
        cut_weights,
        lambda: setattr(tensor, "data_type", generator.randrange(30)),
        lambda: setattr(tensor, "name", generator.choice(["", "x", "y", "\x1b[2J", "a" * 5000])),
        lambda: setattr(node, "op_type", generator.choice(["", "Loop", "If", "Softmax", "Reshape", "Nothing"])),
        lambda: setattr(node, "domain", generator.choice(["com.microsoft", "ai.onnx.ml", "\x00"])),
        lambda: node.input.append(generator.choice(["", "x", "y", "nowhere"])),
        lambda: node.output.append(generator.choice(["", "x", "y"])),
        lambda: graph.node.remove(node),
        lambda: graph.node.append(node),
        lambda: setattr(value.type.tensor_type, "elem_type", generator.randrange(30)),
        lambda: value.type.tensor_type.shape.dim.add(dim_value=number),
        lambda: value.type.tensor_type.shape.ClearField("dim"),
        lambda: setattr(value, "name", generator.choice(["", "nowhere", "../x", "\x1b]0;x\x07"])),
        lambda: setattr(model, "ir_version", number),
        lambda: setattr(model.opset_import[0], "version", number),
        lambda: graph.ClearField(generator.choice(["input", "output", "node", "initializer"])),
        *([change_attribute] * 3 if attributes else []),
    ]  # fmt: skip
    generator.choice(acts)()
    return model.SerializeToString()


def damage(data: bytes, generator: random.Random) -> bytes:
    """Returns data with one kind of damage: flips, a cut, a piece overwritten, removed, doubled or put in."""
    start = generator.randrange(len(data))
    # Headers and graphs lie at both ends of a model; weights, where damage is only another number, between.
    if generator.random() < 0.7:
        start = generator.choice([start % 400, len(data) - 1 - start % 800]) % len(data)
    end = min(len(data), start + generator.choice([1, 4, 16, 64]))
    kind = generator.choice([0, 0, 0, 0, 1, 2, 2, 3, 4, 5])  # most damage leaves the lengths, else little is parsed
    if kind == 0:
        for _ in range(generator.choice([1, 2, 8])):
            data = flip_bit(data, generator)
        return data
    if kind == 1:
        return data[:start]
    if kind == 2:
        return data[:start] + generator.randbytes(end - start) + data[end:]
    if kind == 3:
        return data[:start] + data[end:]
    if kind == 4:
        return data[:end] + data[start:]
    return data[:start] + b"\xff" * 9 + b"\x7f" + data[start:]  # a length that protobuf reads as huge


def change_numbers(value: Any, every: int = 1) -> Iterator[tuple[str, Any]]:
    """Yields (place and new value, all values) with one number replaced by a hostile one; of all, one in `every`."""
    for path, hostile in islice(product(_find_numbers(value, ()), HOSTILE_NUMBERS), None, None, every):
        changed = copy.deepcopy(value)
        part = changed
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = hostile
        yield f"{'.'.join(map(str, path))} = {hostile!r:.40}", changed


def _find_numbers(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _find_numbers(item, (*path, key))
    elif isinstance(value, int | float):
        yield path
