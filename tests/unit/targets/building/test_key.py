"""The key of an artifact: each thing that decides its files changes it, and nothing else does."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import replace as replace_evidence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelwright.core.outputs.limit import Limit, Metric
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.exported import ExportedModel, ExportSource
from modelwright.core.records.machine import Gpu, Machine
from modelwright.core.records.plan import BitPlan, PlanChoice, PlannedLayer
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef
from modelwright.targets.building import key
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.contract import Target
from modelwright.targets.quantization import budget, goal, repair, savings, search, sensitivity
from modelwright.targets.table import get_target, target_names
from modelwright.targets.tensorrt.target import TensorrtFp16
from modelwright.targets.tflite import conversion, environment, quantize

ALL = tuple(target_names())
SEARCHED = tuple(name for name in ALL if "int8" in name or "int4" in name or name == "tflite-fp16")
WITH_SAMPLES = tuple(name for name in ALL if get_target(name).record.uses_samples)
TFLITE = tuple(name for name in ALL if name.startswith("tflite-"))

SPEC = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
EXPORTED = ExportedModel(
    model_path=Path("/home/ann/model.onnx"),
    signature=Signature(inputs=(SPEC,), outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),)),
    source=ExportSource(kind="factory", path="/home/ann/net.py:make", sha256="a" * 64, files={}),
    num_parameters=8,
    opset=20,
    sha256="b" * 64,
    files={"model.onnx": "b" * 64},
    size_bytes=100,
    comparison=None,
    comparison_reason="not asked for",
    notes=(),
    versions={},
    program="model.program.pt2",
    program_sha256="c" * 64,
)
ROLE = OutputRole(name="y", role="classes", why="its rows vary", axis=1)
PARTS = {
    "calibration": {"path": "/home/ann/x.npz", "count": 8, "sha256": "d" * 64},
    "tuning": {"path": "/home/ann/x.npz", "count": 4, "sha256": "e" * 64},
    "evaluation": {"path": "/home/ann/x.npz", "count": 8, "sha256": "f" * 64},
}
EVIDENCE = Evidence(
    calibration=SampleRef(path=Path("/home/ann/x.npz"), part="calibration"),
    tuning=SampleRef(path=Path("/home/ann/x.npz"), part="tuning"),
    evaluation=SampleRef(path=Path("/home/ann/x.npz"), part="evaluation"),
    described=PARTS,
    reference=Path("/tmp/scratch-1"),
    random=False,
    roles={"y": ROLE},
)
MACHINE = Machine(
    name="host",
    architecture="x86_64",
    instruction_sets=frozenset({"avx2"}),
    cores=2,
    gpu=Gpu(name="NVIDIA L4", compute_capability="8.9", cuda_version="13.0", driver_version="580.1"),
)
SHAPES = {"x": ShapeRange(minimum=(1, 4), optimum=(1, 4), maximum=(8, 4))}


@pytest.fixture(scope="module")
def distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


@pytest.fixture(autouse=True)
def _read_the_installed_packages_once(monkeypatch: pytest.MonkeyPatch, distributions: dict[str, list[str]]) -> None:
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: distributions)


def make(
    target: str | Target,
    exported: ExportedModel = EXPORTED,
    evidence: Evidence = EVIDENCE,
    machine: Machine = MACHINE,
    options: dict[str, Any] | None = None,
    shapes: dict[str, ShapeRange] = SHAPES,
    *,
    fits_host: bool = True,
) -> str:
    chosen = get_target(target) if isinstance(target, str) else target
    return key.make_key(chosen, exported, evidence, machine, options or {}, shapes, fits_host=fits_host)


def with_parts(**parts: Any) -> Evidence:
    return replace_evidence(EVIDENCE, described=PARTS | parts)


def test_targets_have_different_keys() -> None:
    assert len({make(name) for name in ALL}) == len(ALL)


@pytest.mark.parametrize("name", ALL)
def test_what_decides_every_target(name: str) -> None:
    base = make(name)
    assert make(name) == base
    assert make(name, exported=replace(EXPORTED, sha256="0" * 64)) != base
    assert make(name, machine=replace(MACHINE, cores=4)) != base
    assert make(name, machine=replace(MACHINE, instruction_sets=frozenset({"avx2", "amx_int8"}))) != base
    assert make(name, options={"tf32": True}) != base


def test_another_plan_is_another_artifact() -> None:
    layer = PlannedLayer(output="y", operator="MatMul", weight="w", weight_bits=8, activation_bits=8)
    plan = BitPlan(onnx_sha256="b" * 64, model="net", origin="a hand", method="by hand", layers=(layer,))
    narrower = replace(plan, layers=(replace(layer, weight_bits=4),))
    choices = [
        None,
        *(PlanChoice(plan=each, repairs=repairs) for each in (plan, narrower) for repairs in (True, False)),
    ]
    target = get_target("ort-int8")
    keys = {
        key.make_key(target, EXPORTED, EVIDENCE, MACHINE, {}, SHAPES, fits_host=True, plan=choice) for choice in choices
    }
    assert len(keys) == len(choices)


@pytest.mark.parametrize("name", ALL)
def test_what_decides_nothing_changes_no_key(name: str) -> None:
    base = make(name)
    moved = replace(
        EXPORTED, model_path=Path("/elsewhere/model.onnx"), source=replace(EXPORTED.source, path="net.py:make")
    )
    assert make(name, exported=moved) == base
    elsewhere = {part: {**facts, "path": "/elsewhere/x.npz"} for part, facts in PARTS.items()}
    evidence = replace_evidence(
        EVIDENCE,
        described=elsewhere,
        reference=Path("/tmp/scratch-2"),
        evaluation=SampleRef(path=Path("/elsewhere/x.npz"), part="evaluation", limit=16),
        roles={"y": replace(ROLE, why="said by --task")},
        doubts=("few samples",),
    )
    assert make(name, evidence=evidence) == base
    assert make(name, machine=replace(MACHINE, name="a-profile-with-the-same-facts")) == base
    assert make(name, evidence=with_parts(evaluation={**PARTS["evaluation"], "sha256": "0" * 64})) == base


@pytest.mark.parametrize("name", ALL)
def test_samples_and_roles_decide_what_is_made_with_them(name: str) -> None:
    changed = {
        make(name, evidence=with_parts(calibration={**PARTS["calibration"], "sha256": "0" * 64})),
        make(name, evidence=with_parts(tuning=None)),
        make(name, evidence=replace_evidence(EVIDENCE, roles={"y": replace(ROLE, role="embedding")})),
    }
    assert len(changed - {make(name)}) == (3 if name in WITH_SAMPLES else 0)


@pytest.mark.parametrize("name", ALL)
def test_a_limit_decides_what_is_chosen_with_samples(name: str) -> None:
    metric = Metric(path=Path("/home/ann/score.py"), function="f1", sha256="a" * 64)
    limit = Limit(max_drop=0.5, by="metric", evaluated=100, metric=metric)

    def make_with(limit: Limit | None) -> str:
        return make(name, evidence=replace_evidence(EVIDENCE, limit=limit))

    base = make_with(limit)
    assert make_with(replace(limit, metric=replace(metric, path=Path("/elsewhere/score.py")))) == base
    changed = {
        make_with(other)
        for other in (
            None,
            replace(limit, max_drop=0.6),
            replace(limit, evaluated=99),
            replace(limit, by="accuracy", metric=None),
            replace(limit, metric=replace(metric, sha256="b" * 64)),
            replace(limit, metric=replace(metric, function="f2")),
        )
    }
    assert len(changed - {base}) == (6 if name in WITH_SAMPLES else 0)


@pytest.mark.parametrize("name", ALL)
def test_the_program_ranges_and_gpu_decide_where_they_are_used(name: str) -> None:
    record, base = get_target(name).record, make(name)
    other = Gpu(name="NVIDIA A100", compute_capability="8.0", cuda_version="13.0")
    ranges = {"x": ShapeRange(minimum=(1, 4), optimum=(4, 4), maximum=(8, 4))}
    assert (make(name, exported=replace(EXPORTED, program_sha256="0" * 64)) != base) is record.uses_program
    assert (make(name, shapes=ranges) != base) is record.uses_shapes
    assert (make(name, machine=replace(MACHINE, gpu=other)) != base) is record.uses_gpu


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "numpy", "modelwright"])
def test_versions_decide(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    installed = dict.fromkeys(("onnx", "onnxruntime", "numpy", "modelwright"), "1.0")
    monkeypatch.setattr(key, "package_versions", lambda *names: {n: installed[n] for n in names if n in installed})
    monkeypatch.setattr(key, "find_distributions", lambda imports: [i for i in imports if i in installed])
    base = make(name)
    installed[package] = "2.0"
    record = get_target(name).record
    uses = package in record.build_packages or package == "modelwright"
    uses |= record.uses_samples and package in ("onnxruntime", "numpy")
    assert (make(name) != base) is uses


@pytest.mark.parametrize(
    ("where", "limit", "value"),
    [
        (budget, "MOST", 3),
        (sensitivity, "_SAMPLES", 4),
        (repair, "_FEW", 0.1),
        (repair, "_MOST_FOR_GOOD", 0.2),
        (savings, "_PER_WEIGHT", 8.0),
        (repair, "_MANY", 0.9),
        (search, "describe_goal", lambda: {"good": {"severity": 0.5}}),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_limits_of_a_search_decide_what_is_searched(
    monkeypatch: pytest.MonkeyPatch, name: str, where: Any, limit: str, value: Any
) -> None:
    base = make(name)
    monkeypatch.setattr(where, limit, value)
    assert (make(name) != base) is (name in SEARCHED)


def test_every_target_that_searches_is_known_here() -> None:
    """A target that comes later and searches has to declare the limits, and to stand among these."""
    declared = {name for name in ALL if get_target(name).key_facts(MACHINE).get("search")}
    assert declared == set(SEARCHED)
    assert get_target("ort-int8").key_facts(MACHINE)["search"]["goal"] == goal.describe_goal()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "requirements.txt").write_text("onnx2tf==0.0.1\n"),
        lambda folder: (folder / "trials.py").write_text("_WINDOW_S = 3\n"),
        lambda folder: (folder / "new_step.py").write_text(""),
    ],
    ids=["requirements", "timing", "a file more"],
)
@pytest.mark.parametrize("name", ALL)
def test_the_converter_decides_tflite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, change: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "converter"
    shutil.copytree(environment.REQUIREMENTS.parent, folder)
    base = make(name)
    monkeypatch.setattr(environment, "REQUIREMENTS", folder / environment.REQUIREMENTS.name)
    assert make(name) == base, "where it lies does not count"
    change(folder)
    assert (make(name) != base) is (name in TFLITE)


def test_how_tflite_chooses_among_good_files_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: make(name) for name in TFLITE}
    monkeypatch.setattr(quantize, "WORTH", 1.5)
    changed = {name for name in TFLITE if make(name) != before[name]}
    assert changed == set(TFLITE) - {"tflite-fp32"}


@pytest.mark.parametrize("name", ALL)
def test_whether_times_count_decides_where_candidates_are_timed(name: str) -> None:
    assert (make(name, fits_host=False) != make(name)) is get_target(name).record.uses_speed
    assert get_target(name).record.uses_speed is (name in ("tflite-int8", "tflite-int8-dynamic", "tflite-int4-weights"))


@pytest.mark.parametrize("limit", ["_JUDGED", "_ROUNDING"])
def test_how_tflite_takes_a_conversion_decides_all_of_its_files(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    before = {name: make(name) for name in ALL}
    monkeypatch.setattr(conversion, limit, 0)
    assert {name for name in ALL if make(name) != before[name]} == set(TFLITE)


def test_the_cuda_that_kernels_are_timed_under_decides_where_they_are_timed() -> None:
    assert MACHINE.gpu is not None
    newer = replace(MACHINE, gpu=replace(MACHINE.gpu, cuda_version="13.1"))
    changed = {name for name in ALL if make(name, machine=newer) != make(name)}
    assert changed == {"tensorrt-fp32", "tensorrt-fp16", "tensorrt-int8"}


def test_a_new_recipe_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(TensorrtFp16())
    record = TensorrtFp16.record
    monkeypatch.setattr(TensorrtFp16, "record", type(record)(**{**vars(record), "recipe_version": 99}))
    assert make(TensorrtFp16()) != base
