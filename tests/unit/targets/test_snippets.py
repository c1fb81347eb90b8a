"""Programs in other languages: hostile names are values in them, and nothing of a name reaches the terminal bare."""

from __future__ import annotations

import ast
import re

import pytest

from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import RunSettings
from modelwright.targets.snippets import choose_shape, is_dynamic, quote_cpp, quote_python
from modelwright.targets.table import get_target

NAMES = ["x", 'a"b', "a'b", "a\\", "a\nb", "\x1b[31mred", "naïve", "\u202eevil", "??/", '"; import os #', ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_literal_of_plain_ascii(name: str) -> None:
    python, cpp = quote_python(name), quote_cpp(name)
    assert ast.literal_eval(python) == name
    assert python.isascii()
    assert python.isprintable()
    assert cpp.isascii()
    assert cpp.isprintable()
    assert "??" not in cpp, "no trigraph"
    body = re.sub(r"\\([0-7]{3}|.)", "", cpp[1:-1])
    assert '"' not in body
    assert "\\" not in body
    bare = re.sub(
        rb"\\([0-7]{3}|.)",
        lambda found: bytes([int(found[1], 8)]) if len(found[1]) == 3 else found[1],
        cpp[1:-1].encode(),
    )
    assert bare.decode() == name


def test_dynamic_dimensions_are_one() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3, "height"))
    assert is_dynamic(spec)
    assert choose_shape(spec) == (1, 3, 1)
    assert not is_dynamic(TensorSpec(name="x", dtype="float32", shape=(1, 3)))


@pytest.mark.parametrize("target", ["ort-fp32", "openvino-fp32", "tflite-fp32"])
@pytest.mark.parametrize("name", NAMES)
def test_programs_of_models_with_any_name_are_programs(target: str, name: str) -> None:
    spec = TensorSpec(name=name, dtype="float32", shape=("batch", 2))
    entry = {"name": name, "position": 0, "shape": [1, 2], "order": [1, 0]}
    binding = {"inputs": [entry], "outputs": [entry], "dynamic_batch": True, "reset_variables": True}
    facts = ('model"file', {"binding": binding}, Signature(inputs=(spec,), outputs=(spec,)), RunSettings(requests=2))
    python = get_target(target).write_snippet("python", *facts)
    cpp = get_target(target).write_snippet("cpp", *facts)
    assert python is not None
    assert cpp is not None
    ast.parse(python)
    for text in (python, cpp):
        assert text.isascii()
        assert all(line.isprintable() for line in text.splitlines())
    assert cpp.count("{") == cpp.count("}")
