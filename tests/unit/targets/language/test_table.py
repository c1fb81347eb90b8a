"""The table of targets for language models."""

from __future__ import annotations

import re

import pytest

from modelwright.core.errors import UsageError
from modelwright.core.records.machine import Machine
from modelwright.harness.language.choices import choose_targets, describe_targets
from modelwright.targets.language.table import TABLE, get_target, target_names


def test_a_target_is_what_the_table_calls_it() -> None:
    assert [get_target(name).record.name for name in target_names()] == list(target_names())


@pytest.mark.parametrize("name", ["ort-fp23", "ort", "nothing like it"])
def test_a_target_that_is_suggested_is_one(name: str) -> None:
    with pytest.raises(UsageError, match=r"no target .* for language models") as caught:
        get_target(name)
    told = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", caught.value.hint or "")
    assert told
    assert all(get_target(suggested).record.name == suggested for suggested in told)
    assert name != "nothing like it" or set(told) == set(TABLE)


FEWER_BITS = (
    "ort-int8-weights",
    "ort-int4-weights",
    "openvino-int8-weights",
    "openvino-int4-weights",
    "tflite-int8-dynamic",
    "tflite-int4-weights",
)


@pytest.mark.parametrize(("instructions", "more"), [((), set()), (("avx512_bf16",), {"openvino-bf16"})])
def test_who_names_no_target_gets_what_is_worth_shipping(instructions: tuple[str, ...], more: set[str]) -> None:
    machine = Machine(name="box", architecture="x86_64", instruction_sets=frozenset(instructions), cores=4)
    chosen = choose_targets(None, "torch-fp32", machine)
    assert chosen[0] == "torch-fp32"
    assert set(chosen[1:]) == {*FEWER_BITS} | more
    assert list(chosen[1:]) == [name for name in TABLE if name in chosen[1:]]
    told, _, others = describe_targets(chosen).partition("; --target names others instead: ")
    assert told == f"{len(chosen)} targets: {', '.join(chosen)}"
    assert set(others.split(", ")) == set(TABLE) - set(chosen)


def test_who_names_targets_gets_these_and_the_baseline() -> None:
    machine = Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=4)
    assert choose_targets(["torch-int8-dynamic", "ort-fp32"], "torch-fp32", machine) == (
        "torch-fp32",
        "ort-fp32",
        "torch-int8-dynamic",
    )
