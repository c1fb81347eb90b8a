"""What PyTorch modules return, as ONNX can have it: tensors in tuples, lists and dicts. For child processes only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelwright.exporters.torch.source import TorchSource

_SHOWN_CHARACTERS = 60


def plain_outputs(torch: Any, source: TorchSource) -> None:
    """Lets a module return dicts where it returns dataclasses, and nothing in the place of what is no tensor.

    What is left out is noted. A hook does it, so that parameters, their names and the signature stay as they are.
    """
    told: dict[str, None] = {}

    def replace(_module: Any, _args: Any, outputs: Any) -> Any:
        changed = _make_plain(torch, outputs, "", told)
        for sentence in told:
            if sentence not in source.notes:
                source.notes.append(sentence)
        return None if changed is outputs else changed

    source.module.register_forward_hook(replace)


def _make_plain(torch: Any, value: Any, place: str, told: dict[str, None]) -> Any:
    """Returns a value without what ONNX cannot have; the value itself where there is nothing of that kind."""
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping | type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _make_plain(torch, fields, place, told)
    if isinstance(value, Mapping):
        items = {key: _make_plain(torch, item, _join(place, key), told) for key, item in value.items()}
        if all(items[key] is item and not _is_left_out(item) for key, item in value.items()):
            return value
        return {key: item for key, item in items.items() if not _is_left_out(item, _join(place, key), told)}
    if isinstance(value, list | tuple):
        parts = [_make_plain(torch, item, _join(place, number), told) for number, item in enumerate(value)]
        if all(part is item and not _is_left_out(item) for part, item in zip(parts, value, strict=True)):
            return value
        return tuple(part for number, part in enumerate(parts) if not _is_left_out(part, _join(place, number), told))
    return value


def _is_left_out(value: Any, place: str = "", told: dict[str, None] | None = None) -> bool:
    """Whether a value is a number or text, which every run of a graph would give alike; `told` takes a sentence."""
    if not isinstance(value, bool | int | float | complex | str | bytes):
        return False
    if told is not None:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
        told[f"output {place} is {shown}, of type {type(value).__name__}, no tensor: it is left out"] = None
    return True


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)
