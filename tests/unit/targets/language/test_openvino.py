"""Facts of the OpenVINO targets for language models that need no OpenVINO."""

from __future__ import annotations

import re

from modelwright.core.records.machine import Machine
from modelwright.targets.language.table import get_target


def test_a_machine_without_bf16_takes_the_other_target() -> None:
    machine = Machine(name="box", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2)
    refused = get_target("openvino-bf16").check_build(machine)
    assert "neither avx512_bf16 nor amx_bf16" in (refused.reason or "")
    told = re.findall(r"openvino-[\w-]+", refused.hint or "")
    assert told == ["openvino-fp32", "openvino-int8-weights"]
    for name in told:
        taken = get_target(name).check_build(machine)
        assert taken.ok or "not installed" in (taken.reason or "")
