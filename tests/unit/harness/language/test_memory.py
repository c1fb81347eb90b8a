"""What a build and a measurement take of the memory is said before they begin."""

from __future__ import annotations

import pytest
from language_results import make_model
from msgspec.structs import replace

from modelwright.core.errors import BuildFailedError, MeasurementInvalidError
from modelwright.core.records.language import LanguageModel
from modelwright.harness.language.memory import estimate_build_bytes, require_build_memory, require_room
from modelwright.targets.language.table import get_target, target_names

GB = 10**9
NEEDED = {"tflite-fp32": 7.3, "ort-int4-weights": 10.4}


@pytest.fixture
def model() -> LanguageModel:
    """Of the shape of Qwen2.5-1.5B: 6.2 GB in FP32, and 0.3 GB of logits for a window of 512 tokens."""
    return replace(make_model(), num_parameters=1_543_714_304, vocab_size=151_936, context_length=32_768)


@pytest.mark.parametrize(("name", "needed"), NEEDED.items())
def test_too_little_memory_is_told_with_the_estimate(model: LanguageModel, name: str, needed: float) -> None:
    record = get_target(name).record
    assert estimate_build_bytes(record, model) / GB == pytest.approx(needed, abs=0.05)
    told = rf"building {name} would take about {needed}\d* GB of memory, by estimate, of which 7.00 GB are free"
    with pytest.raises(BuildFailedError, match=told) as caught:
        require_build_memory(record, model, 7 * GB)
    assert "--target" in (caught.value.hint or "")
    require_build_memory(record, model, 11 * GB)
    require_build_memory(record, model, None)


def test_a_small_model_takes_little_in_every_target() -> None:
    """SmolLM2-135M: what was measured of each target is below its estimate, none of which is above 2 GB."""
    small = replace(make_model(), num_parameters=134_515_008, vocab_size=49_152, context_length=8192)
    for name in target_names():
        assert 1 * GB < estimate_build_bytes(get_target(name).record, small) < 2.5 * GB


def test_artifacts_that_are_measured_are_in_memory_together() -> None:
    require_room([GB, GB], 25 * GB // 10)
    require_room([GB, GB], None)
    told = r"2 artifacts need about 2\.50 GB of memory together, .* 2\.40 GB are free"
    with pytest.raises(MeasurementInvalidError, match=told) as caught:
        require_room([GB, GB], 24 * GB // 10)
    assert "name fewer by --target" in (caught.value.hint or "")
