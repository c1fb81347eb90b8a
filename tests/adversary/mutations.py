"""Damage to bytes and to JSON values, from a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

HOSTILE_NUMBERS: tuple[object, ...] = (
    -1, 0, 2**31, 2**63, 2**64, 10**400, -0.5, 0.5, 1e308, float("nan"), float("inf"), float("-inf"), "1", "", None,
    True, [], {}, [1], {"1": 1},
)  # fmt: skip


def flip_bit(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def damage(data: bytes, generator: random.Random) -> bytes:
    """Returns data with one kind of damage: flips, a cut, a piece overwritten, removed, doubled or put in."""
    start = generator.randrange(len(data))
    # Headers and graphs lie at both ends of a model; weights, where damage is only another number, between.
    if generator.random() < 0.7:
        start = generator.choice([start % 400, len(data) - 1 - start % 800]) % len(data)
    end = min(len(data), start + generator.choice([1, 4, 16, 64]))
    kind = generator.randrange(6)
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


def change_numbers(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (place and new value, all values) with one number replaced by each hostile one."""
    for path in list(_find_numbers(value, ())):
        for hostile in HOSTILE_NUMBERS:
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
