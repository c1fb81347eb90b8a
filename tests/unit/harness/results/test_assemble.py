from __future__ import annotations

import json
import math
from dataclasses import replace as replace_window
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.records import artifact as records
from modelwright.core.records.artifact import Artifact, Manifest, Proof
from modelwright.core.records.exported import SourceModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.harness.results.assemble import Absent, Context, assemble_comparison, describe_environment
from modelwright.harness.results.file import decode_results, encode_results
from modelwright.harness.results.record import Comparison, Measurement, Memory, Samples, Source
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import Measured, Measurements
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.told import Executed, Finished, Opened, RanWith
from modelwright.profiles import detect_host, find_region, load_profile

SPEC = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
HASH = "0" * 64
MACHINE = Machine(name="host", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=4)
FIDELITY = Fidelity(
    samples=200, outputs=(), worst_output=None, cosine=0.999, agreement=0.99, agreement_reason=None
)  # fmt: skip
PROOF = Proof(
    fidelity=FIDELITY, count=200, correct=190, correct_fp32=192, samples_sha256=HASH, host=MACHINE, threads=1
)  # fmt: skip
SOURCE = SourceModel(
    kind="onnx", path="m.onnx", sha256=HASH, num_parameters=1, opset=18, onnx_sha256=HASH, onnx_size_bytes=1,
    comparison=None,
)  # fmt: skip


def artifact(target: str, proof: Proof | None = PROOF) -> Artifact:
    manifest = Manifest(
        target=target, model_file="m", files={}, size_bytes=1000, signature=Signature(inputs=(SPEC,), outputs=(SPEC,)),
        source=SOURCE, samples=records.SampleProvenance(), machine=MACHINE, requires=records.Requires(), recipe={},
        versions={},
        build_host=records.BuildHost(architecture="x86_64", system="Linux", python="3.11"), build_s=1.5, proof=proof,
        proof_reason=None if proof else "not proved: another machine", notes=("a note",), key=HASH, created="c",
    )  # fmt: skip
    return Artifact(directory=Path(target), manifest=manifest, seal=HASH)


def measured(name: str, latency_ms: float, rounds: int = 12, energy_j: float | None = None) -> Measured:
    windows = {
        index: Window(
            latencies_ms=[latency_ms * (1 + index)] * 100,
            inferences=110,
            elapsed_s=0.11 * latency_ms,
            energy_j=energy_j,
        )
        for index in range(rounds)
    }
    opened = Opened(
        seal=HASH, import_ms=1.0, load_ms=2.0, first_inference_ms=3.0, runtime_bytes=40, settings=RanWith(threads=1),
    )  # fmt: skip
    finished = Finished(peak_memory_bytes=100, steady_memory_bytes=90, precision_executed=Executed(precision="int8"))
    return Measured(name=name, opened=opened, finished=finished, windows=windows)


def assemble(results: dict[str, Measured], profile: str = "desktop-i5-10400", **changes: Any) -> Comparison:
    host = load_profile(profile)
    context = Context(
        settings=MeasureSettings(effort=get_effort("quick")), profile=host, host=host, region=find_region("DE"),
        baseline="ort-fp32",
    )  # fmt: skip
    values: dict[str, Any] = {
        "source": Source(path="m.onnx"), "samples": Samples(), "reused": {}, "absent": [],
        "artifacts": {name: artifact(name.split(" ")[0]) for name in results},
        "measurements": Measurements(by_name=results, meter=None, idle_power_w=None),
    }  # fmt: skip
    return assemble_comparison(context, **(values | changes))


def rows(comparison: Comparison) -> dict[str, Measurement]:
    return {row.target: row for row in comparison.measurements}


def test_figures_of_known_windows() -> None:
    document = assemble({"ort-fp32": measured("ort-fp32", 2.0), "ort-int8": measured("ort-int8", 0.5)})
    row = rows(document)["ort-int8"]
    assert row.speedup.ratio == pytest.approx(4.0)
    assert row.num_inferences == 1200
    assert row.warm_up_inferences == 120
    assert row.latency_ms.mean == pytest.approx(0.5 * 6.5)
    assert row.throughput_per_s == pytest.approx(1000 / (0.5 * 6.5))
    assert row.memory == Memory(runtime_bytes=40, steady_bytes=90, model_bytes=50)
    assert row.accuracy == pytest.approx(0.95)
    assert (row.correct, row.evaluated) == (190, 200)
    assert row.energy.per_inference_j == pytest.approx((5 + 21 / 6) * 0.5 * 6.5 / 1000), "one of six cores"
    assert row.energy.source == "estimated:tdp_util"
    assert row.carbon.per_inference_g == pytest.approx(row.energy.per_inference_j / 3.6e6 * 420)
    assert all(value == pytest.approx(math.log(4)) for value in row.round_log_ratios)
    assert rows(document)["ort-fp32"].speedup == SpeedRatio(ratio=1.0, ci95=(1.0, 1.0))


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    result = measured("ort-fp32", 2.0)
    even = {
        index: replace_window(window, latencies_ms=[10.0, 1.0, 3.0, 2.0]) for index, window in result.windows.items()
    }
    result.windows = even
    row = rows(assemble({"ort-fp32": result}))["ort-fp32"]
    assert row.window_median_ms == (2.5,) * len(even), "not 3, the upper one"
    assert row.latency_ms.p50 == 2.5


def test_what_was_not_measured_is_none_with_its_reason() -> None:
    results = {"ort-fp32": measured("ort-fp32", 2.0), "ort-int8": measured("ort-int8", 0.5, rounds=3)}
    artifacts = {"ort-fp32": artifact("ort-fp32"), "ort-int8": artifact("ort-int8", proof=None)}
    row = rows(assemble(results, profile="nvidia-t4", artifacts=artifacts))["ort-int8"]
    for field in ("accuracy", "agreement", "cosine", "speedup"):
        assert getattr(row, field) is None
        assert row.unavailable[field]
    assert row.unavailable["accuracy"] == "not proved: another machine"


@pytest.mark.parametrize(("correct", "count"), [(201, 200), (0, 0)])
def test_an_impossible_count_is_no_accuracy(correct: int, count: int) -> None:
    proved = artifact("ort-fp32", replace(PROOF, correct=correct, count=count, correct_fp32=0))
    comparison = assemble({"ort-fp32": measured("ort-fp32", 2.0)}, artifacts={"ort-fp32": proved})
    row = rows(comparison)["ort-fp32"]
    assert (row.accuracy, row.accuracy_ci95, row.accuracy_fp32) == (None, None, None)
    assert row.unavailable["accuracy"] == f"the proof counts {correct} right answers of {count} samples"


def test_crashes_and_missing_toolchains_are_rows() -> None:
    crashed = Measured(name="ort-int8", failure=MeasurementInvalidError("it crashed", hint="look"))
    absent = [Absent(target="openvino-int8", status="failed", error=BuildFailedError("no", hint="yes"))]
    document = assemble({"ort-fp32": measured("ort-fp32", 2.0), "ort-int8": crashed}, absent=absent)
    found = rows(document)
    assert (found["ort-int8"].status, found["ort-int8"].reason) == ("failed", "it crashed")
    assert (found["openvino-int8"].status, found["openvino-int8"].exit_code) == ("failed", 5)
    assert found["ort-fp32"].status == "measured"


def test_an_artifact_of_a_target_that_this_version_lacks_is_a_row() -> None:
    unknown = Measured(name="newer-int4", failure=BadInputError("this version does not know it"))
    row = rows(assemble({"ort-fp32": measured("ort-fp32", 2.0), "newer-int4": unknown}))["newer-int4"]
    assert (row.status, row.title, row.runtime, row.precision) == ("failed", "newer-int4", "newer", "int4")


def test_a_baseline_that_failed_leaves_no_ratio() -> None:
    crashed = Measured(name="ort-fp32", failure=MeasurementInvalidError("it crashed"))
    row = rows(assemble({"ort-fp32": crashed, "ort-int8": measured("ort-int8", 0.5)}))["ort-int8"]
    assert row.speedup is None
    assert row.latency_ms.p50 is not None


def test_a_gpu_boards_power_is_not_taken_for_the_cpu() -> None:
    row = rows(assemble({"ort-fp32": measured("ort-fp32", 2.0)}, profile="nvidia-t4"))["ort-fp32"]
    assert row.energy.per_inference_j is None
    assert "GPU board" in row.unavailable["energy"]


def test_what_is_written_is_read_back_the_same() -> None:
    crashed = Measured(name="ort-int8", failure=MeasurementInvalidError("it crashed", hint="look"))
    comparison = assemble({"ort-fp32": measured("ort-fp32", 2.0), "ort-int8": crashed})
    values = json.loads(json.dumps(encode_results(comparison), allow_nan=False))
    assert decode_results(values, where="here") == comparison


def test_the_environment_holds_the_version_of_every_toolchain_that_is_installed() -> None:
    from importlib.metadata import packages_distributions, version

    versions = describe_environment(detect_host()).versions
    installed = packages_distributions()
    for package in ("numpy", "onnx", "onnxruntime", "openvino", "nncf", "torch", "modelopt", "tensorrt_rtx_bindings"):
        for distribution in installed.get(package, ()):
            assert versions[distribution] == version(distribution)
