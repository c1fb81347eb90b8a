"""The cause in OpenVINO's errors, which name places in its source first."""

from __future__ import annotations

import pytest

from modelwright.targets.openvino.words import find_cause

PLACES = """Exception from src/inference/src/cpp/core.cpp:117:
Exception from src/inference/src/dev/plugin.cpp:54:
Check '!shape.rank().is_dynamic()' failed at src/plugins/intel_cpu/src/node.cpp:108:
"""
CAUSE = "Node 'mul' of type 'Multiply': arguments do not have the same shape"
OPEN_RANK = "Unexpected: CPU plug-in doesn't support If operation with dynamic rank. Operation name: /decoder/If_1"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (PLACES + CAUSE + "\n\n", CAUSE),
        (PLACES + OPEN_RANK, "how many dimensions the outputs of If /decoder/If_1 have is not known before it runs"),
        (PLACES, "its check '!shape.rank().is_dynamic()' failed"),
        (PLACES.splitlines()[0], "RuntimeError"),
        ("Could not find a bias node\nmore", "Could not find a bias node"),
        ("", "RuntimeError"),
    ],
)
def test_places_in_the_source_are_no_cause(text: str, cause: str) -> None:
    assert find_cause(RuntimeError(text)) == cause
