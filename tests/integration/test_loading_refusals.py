"""What damaged artifacts and programs are refused for when they are read; built again, they are taken."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import MATMUL, Bench, make_weight
from refusing import refused

from modelwright.core.records.codec import encode
from modelwright.core.records.exported import PROGRAM_CALL_FILE, ExportedModel
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.exporters import export
from modelwright.profiles import detect_host
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings
from modelwright.targets.table import get_target


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With one layer of 8 x 8."""
    made = Bench(tmp_path, x=(8,))
    made.save(MATMUL, {"w": make_weight(8, 8)})
    return made


def load(samples: Path, name: str, request: BuildRequest, result: BuildResult) -> None:
    """Loads what was built and has it answer a sample."""
    (row, *_) = open_samples(SampleRef(path=samples), request.signature).feeds(1)
    loaded = get_target(name).load(
        request.directory, result.model_file, result.recipe, request.signature, RunSettings()
    )
    with loaded as session:
        (output,) = session.run(row).values()
        assert output.shape == (1, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compile_options": {"CACHE_DIR": "/tmp"}}, "asks OpenVINO for CACHE_DIR = '/tmp', which no build sets"),
        ({"inference_precision": "f8"}, "asks OpenVINO for INFERENCE_PRECISION_HINT = 'f8'"),
        ({"compile_options": ["CACHE_DIR"]}, "compile_options are no table"),
    ],
)
def test_a_recipe_of_a_stranger_is_built_here(bench: Bench, change: Mapping[str, Any], words: str) -> None:
    pytest.importorskip("openvino")
    request = bench.request()
    result = get_target("openvino-fp32").build(request)
    strange = replace(result, recipe={**result.recipe, **change})
    hint = refused(lambda: load(bench.samples, "openvino-fp32", request, strange), words)
    assert hint == "build the artifact here, from a source that you trust"
    again = bench.request()
    load(bench.samples, "openvino-fp32", again, get_target("openvino-fp32").build(again))


def test_a_damaged_openvino_file_is_built_again(bench: Bench) -> None:
    pytest.importorskip("openvino")
    request = bench.request()
    result = get_target("openvino-fp32").build(request)
    (request.directory / result.model_file).write_text("<net/>")
    hint = refused(lambda: load(bench.samples, "openvino-fp32", request, result), "OpenVINO cannot load")
    assert "build the artifact again" in hint
    again = bench.request()
    load(bench.samples, "openvino-fp32", again, get_target("openvino-fp32").build(again))


PROGRAM_SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 8)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 8)),),
)


def save_program(module: Any, path: Path) -> Path:
    """Saves a module from x to y as exports do, which ship it to PyTorch's targets."""
    import torch

    calls = {PROGRAM_CALL_FILE: '{"inputs": {"x": 0}, "outputs": {"y": 0}}'}
    torch.export.save(torch.export.export(module, (torch.ones(1, 8),)), str(path), extra_files=calls)
    return path


def ask_for_program(bench: Bench, program: Path, name: str) -> BuildRequest:
    """Asks for an artifact of a saved program in a folder of that name."""
    request = replace(bench.request(), program_path=program, signature=PROGRAM_SIGNATURE)
    (bench.folder / name).mkdir()
    return replace(request, directory=bench.folder / name)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def change_member(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, change(data) if member.endswith(name) else data)

    return rewrite


def ask_for_a_pickle(data: bytes) -> bytes:
    weights = json.loads(data)
    for weight in weights["config"].values():
        weight["use_pickle"] = True
    return json.dumps(weights).encode()


@pytest.mark.parametrize(
    ("damage", "words", "told"),
    [
        (cut_off, "torch cannot load program.pt2: it is damaged", "build the artifact again"),
        (
            change_member("data/weights/model_weights_config.json", ask_for_a_pickle),
            "holds what may run code when torch reads it",
            "build the artifact here, from a source that you trust",
        ),
        (
            change_member("archive_format", lambda _data: b"other"),
            r"torch \S+ cannot load program.pt2",
            "build the artifact again with this version of torch",
        ),
    ],
)
def test_a_damaged_program_is_built_again(bench: Bench, damage: Callable[[Path], None], words: str, told: str) -> None:
    torch = pytest.importorskip("torch")
    program = save_program(torch.nn.Linear(8, 8), bench.folder / "program.pt2")
    request = ask_for_program(bench, program, "first")
    result = get_target("torch-fp32").build(request)
    damage(request.directory / result.model_file)
    assert refused(lambda: load(bench.samples, "torch-fp32", request, result), words) == told
    again = ask_for_program(bench, program, "again")
    load(bench.samples, "torch-fp32", again, get_target("torch-fp32").build(again))


def test_a_manifest_that_asks_for_no_version_is_built_again(bench: Bench) -> None:
    target, host = get_target("ort-fp32"), detect_host().machine()

    def build() -> Any:
        return encode(bench.build("ort-fp32", overwrite=True).artifacts["ort-fp32"].manifest.requires)

    requires = build()
    readiness = target.check_artifact({**requires, "packages": dict.fromkeys(requires["packages"], "recent")}, host)
    assert str(readiness.reason).endswith("'recent', which is no version")
    assert readiness.hint == "build it again"
    assert target.check_artifact(build(), host).ok


@pytest.mark.slow
def test_a_damaged_export_of_a_program_is_made_again(bench: Bench) -> None:
    pytest.importorskip("torch")
    code = "import torch\ndef make():\n    return torch.nn.Linear(8, 8), torch.ones(2, 8)\n"
    (bench.folder / "net.py").write_text(code)
    source, out = f"{bench.folder / 'net.py'}:make", bench.folder / "m.onnx"

    def build(exported: ExportedModel, name: str) -> BuildResult:
        assert exported.program_path is not None
        request = ask_for_program(bench, exported.program_path, name)
        return get_target("torch-fp32").build(replace(request, signature=exported.signature))

    exported = export(source, out)
    assert exported.program_path is not None
    cut_off(exported.program_path)
    assert refused(lambda: build(exported, "damaged"), "torch cannot read") == "export the model again"
    hint = refused(lambda: export(source, out, overwrite=True), "was changed after it was exported")
    assert "move that file away" in hint
    exported.program_path.unlink()
    assert build(export(source, out, overwrite=True), "again").model_file


def test_an_operator_that_does_not_know_bf16_is_built_in_fp32(tmp_path: Path) -> None:
    """One of the user's own, which has the name of one that computes."""
    torch = pytest.importorskip("torch")
    from modelwright.targets.pytorch.program import lower_program

    library = torch.library.Library("modelwright_test", "DEF")
    library.define("matmul(Tensor x) -> Tensor")

    def multiply(x: Any) -> Any:
        if x.dtype != torch.float32:
            raise ValueError("float32 alone is known")
        return x.clone()

    for key in ("CPU", "Meta"):
        library.impl("matmul", multiply, key)

    class Net(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return torch.ops.modelwright_test.matmul(x)

    program = save_program(Net(), tmp_path / "program.pt2")
    words = "cannot capture the program in bfloat16: float32 alone is known"
    hint = refused(lambda: lower_program(torch, program, PROGRAM_SIGNATURE, torch.bfloat16), words)
    assert "build the FP32 target" in hint
    (answer,) = lower_program(torch, program, PROGRAM_SIGNATURE, None).module()(torch.full((1, 8), 3.0))
    assert answer.tolist() == [[3.0] * 8]
