"""Which language models ONNX Runtime's targets take."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelwright.targets.language.table import get_target, target_names
from tests.language_results import make_model


@pytest.mark.parametrize("name", [name for name in target_names() if name.startswith("ort-")])
@pytest.mark.parametrize(("channels", "taken"), [(8, True), (24, True), (64, True), (4, False), (20, False)])
def test_heads_that_the_fused_attention_does_not_compute_are_refused(name: str, channels: int, taken: bool) -> None:
    model = replace(make_model(), head_dim=channels)
    found = get_target(name).check_model(model)

    assert found.ok == taken
    assert taken or f"multiple of 8 channels, and those of {make_model().architecture} have {channels}" in found.reason
    assert taken or found.hint == "leave this runtime out: OpenVINO and PyTorch compute such heads"
    assert all(get_target(other).check_model(model).ok for other in ("openvino-fp32", "torch-fp32"))
