"""Users are told of matrices that have more bits than the target's name says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from modelwright.targets.openvino.language.widths import note_wider

HEAD = 320


def describe(**rows: int) -> Any:
    """Returns linear layers by the rows that they sum up."""
    columns = {"head": HEAD}
    return SimpleNamespace(
        linear_layers={name: SimpleNamespace(rows=count, columns=columns.get(name, 64)) for name, count in rows.items()}
    )


def test_matrices_of_odd_rows_are_named_with_what_they_have() -> None:
    layers = describe(q=64, down=75, up=64, head=75)
    notes = note_wider({"q": 4, "down": 8, "up": 8, "head": 8}, layers, 4, 32, HEAD)
    assert notes == [
        "1 of 3 matrices besides the head have 8 bits, not 4: what they sum up is no multiple of 32 channels: down (75)"
    ]
    many = describe(**{f"layer{index}": 33 for index in range(5)})
    (note,) = note_wider(dict.fromkeys(many.linear_layers, 32), many, 8, 32, HEAD)
    assert note.startswith("5 of 5 matrices besides the head have 32 bits, not 8")
    assert note.endswith("layer0 (33), layer1 (33), layer2 (33) and 2 more")


def test_nothing_is_said_of_what_was_asked_for() -> None:
    layers = describe(q=64, down=75)
    assert not note_wider({"q": 4, "down": 4}, layers, 4, 32, HEAD)
    assert not note_wider({"q": 8, "down": 8}, layers, 8, 32, HEAD)
