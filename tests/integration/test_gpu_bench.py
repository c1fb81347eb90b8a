"""The card's bench in a real child process, on a compiled stand-in for the NVIDIA driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_driver.build import build_fake_driver

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.process.child import run_in_child

Describe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def describe(tmp_path_factory: pytest.TempPathFactory) -> Describe:
    driver = build_fake_driver(tmp_path_factory.mktemp("driver"))

    def call(*, metered: bool, **environment: str) -> dict[str, Any]:
        here = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
            "LD_LIBRARY_PATH": str(driver),
            "CUDA_VISIBLE_DEVICES": "0",
            "FAKE_NVML_POWER_MW": "80000",
            "FAKE_NVML_STEP_MS": "5",
        }
        result = run_in_child(
            "gpu_bench_checks:describe_card",
            {"metered": metered},
            purpose="watching the card",
            crash_error=ToolchainMissingError,
            environment=here | environment,
            timeout_s=60,
        )
        assert isinstance(result, dict)
        return result

    return call


def test_energy_is_power_times_time_over_inferences(describe: Describe) -> None:
    for _ in range(3):
        told = describe(metered=True)
        energy = told["energy"]
        if energy["source"]:
            break  # else a window of a fifth of a second was disturbed by a busy machine, and rightly refused
    assert told["ran"] >= 1
    assert energy["source"] == "measured:nvml", energy["reason"]
    assert energy["mean_power_w"] == pytest.approx(80, rel=0.1)
    assert energy["idle_power_w"] == pytest.approx(80, rel=0.1)
    # Ten inferences in each run, which lasts for the window, what is left to settle, and a margin.
    assert energy["per_inference_j"] == pytest.approx(80 * 0.027, rel=0.1)
    assert told["observed"]["windows"] == 1


def test_nothing_is_run_for_energy_that_is_not_asked_for(describe: Describe) -> None:
    told = describe(metered=False)
    assert told["meters"] is False
    assert told["ran"] == 0
    assert told["energy"]["per_inference_j"] is None
    assert told["energy"]["reason"] == "the card's energy was not metered: it was not asked for"
    assert told["observed"]["sm_clock_mhz"]["max"] > 0, "it is watched all the same"


def test_a_card_without_meters_and_hidden_processes_are_told(describe: Describe) -> None:
    told = describe(metered=True, FAKE_NVML_NOT_SUPPORTED="energy,power", FAKE_NVML_PROCESSES="999999:1000")
    assert told["energy"]["per_inference_j"] is None
    assert "tells neither energy nor power" in told["energy"]["reason"]
    assert told["memory"][0] is None
    assert "in a container" in told["memory"][1]


def test_without_a_visible_card_there_is_no_bench(describe: Describe) -> None:
    with pytest.raises(ToolchainMissingError, match="hides every GPU"):
        describe(metered=True, CUDA_VISIBLE_DEVICES="")
