"""Exports of real PyTorch sources and of foreign ONNX files, in real child processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright import examples, harness
from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import load_exported
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import export, exporting
from modelwright.exporters.exporting import find_or_export
from modelwright.harness.building import build_targets

FACTORIES = """
import torch
from torch import nn
from neighbour import WIDTH

class Two(nn.Module):
    output_names = ("sum", "mean")
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
    def forward(self, left, right):
        y = self.linear(left)
        return y + right, y.mean(dim=1, keepdim=True)

def two_inputs():
    return Two(), (torch.randn(2, WIDTH), torch.randn(2, WIDTH))

def without_examples():
    return Two()

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(11, 6)
    def forward(self, ids, mask=None):
        x = self.embed(ids)
        return {"pooled": (x * mask[..., None]).sum(1), "best": x.sum(-1).argmax(-1)}

def dict_inputs():
    ids = torch.arange(5)[None]  # no two alike: argmax would have ties
    return Named().double(), {"mask": torch.ones(1, 5), "ids": ids}

class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)[:, :3] * 2.0 if x.shape[0] == 1 else x[:1].expand(int(x.shape[0]), -1).reshape(2, -1)

def fixed_batch():
    return Fixed(), torch.randn(1, 8)

class Apart(nn.Module):
    def forward(self, feats, *, scale=2.0):
        return [feats[0] * scale, feats[1].reshape(4, -1)]

def fixed_batch_of_four():
    return Apart(), ([torch.randn(4, 3), torch.randn(4, 5)],)

class Liar(nn.Module):
    calls = 0
    def forward(self, x):
        Liar.calls += 1
        return x * float(Liar.calls)

def inconsistent():
    return Liar(), torch.randn(2, 4)

def wrong_examples():
    return Two(), (torch.randn(2, 3), torch.randn(2, 3))
"""

WITHOUT_TORCH = """
def fails():
    raise ValueError("no weights here")

def not_a_module():
    return 42

def dies():
    import os
    os.abort()

def sleeps():
    import time
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factories")
    (folder / "neighbour.py").write_text("WIDTH = 4\n")
    path = folder / "net.py"
    path.write_text(FACTORIES)
    (folder / "light.py").write_text(WITHOUT_TORCH)
    return path


@pytest.mark.slow
def test_two_inputs_two_outputs_and_named_outputs(factories: Path, tmp_path: Path) -> None:
    phases: list[str] = []
    out = tmp_path / "new" / "folder" / "net.onnx"
    exported = export(f"{factories}:two_inputs", out, progress=phases.append)
    assert [spec.describe() for spec in exported.signature.inputs] == [
        "left float32 [batch, 4]",
        "right float32 [batch, 4]",
    ]
    assert [spec.describe() for spec in exported.signature.outputs] == [
        "sum float32 [batch, 4]",
        "mean float32 [batch, 1]",
    ]
    assert (exported.num_parameters, exported.opset) == (20, 18)
    assert exported.comparison is not None
    assert exported.comparison.outputs["sum"].relative_l2_error < 1e-5
    assert any("example inputs only" in note for note in exported.notes)
    assert set(exported.source.files) == {"net.py", "neighbour.py"}
    assert "converting to ONNX" in phases
    assert load_exported(out) == exported
    names = ["net.export.json", "net.made-from.json", "net.onnx", "net.program.pt2"]
    assert sorted(path.name for path in out.parent.iterdir()) == names
    assert set(exported.files) == {"net.onnx"}
    assert exported.program_path == out.resolve().parent / "net.program.pt2"
    model = onnx.load(out)
    assert not any(node.metadata_props for node in model.graph.node), "paths of this machine must not be shipped"
    assert not {value.name for value in model.graph.value_info} & {tensor.name for tensor in model.graph.initializer}

    # Once more from a process of its own, whose size and modules can be seen.
    code = f"""
        import json, sys
        from modelwright.exporters import export
        again = export({str(factories) + ":two_inputs"!r}, {str(tmp_path / "again.onnx")!r})
        peak = [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0]
        hashes = [again.sha256, again.source.sha256, again.program_sha256]
        print(json.dumps([*hashes, int(peak.split()[1]) // 1024, sorted(sys.modules)]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)
    sha256, source_sha256, program_sha256, peak_mb, modules = json.loads(done.stdout)
    assert program_sha256 == exported.program_sha256
    assert str(factories.parent).encode() not in exported.program_path.read_bytes()
    assert sha256 == exported.sha256, "artifacts are found again by this hash"
    assert source_sha256 == exported.source.sha256
    assert peak_mb < 300
    assert not {"torch", "onnx", "onnxruntime"} & set(modules)


def test_samples_give_example_inputs_and_the_proof(factories: Path, tmp_path: Path) -> None:
    samples = models.make_samples(tmp_path / "s.npz", count=40, left=(4,), right=(4,))
    exported = export(f"{factories}:without_examples", tmp_path / "m.onnx", samples=SampleRef(path=samples))
    assert exported.comparison is not None
    assert (exported.comparison.samples, exported.comparison.on) == (32, "samples")
    wrong = models.make_samples(tmp_path / "w.npz", left=(4,), middle=(4,))
    with pytest.raises(BadInputError, match="left, right"):
        export(f"{factories}:without_examples", tmp_path / "n.onnx", samples=SampleRef(path=wrong))
    assert not (tmp_path / "n.onnx").exists()


def test_dict_inputs_and_dict_outputs(factories: Path, tmp_path: Path) -> None:
    exported = export(f"{factories}:dict_inputs", tmp_path / "m.onnx")
    assert [spec.describe() for spec in exported.signature.inputs] == [
        "ids int64 [batch, 5]",
        "mask float32 [batch, 5]",
    ]
    assert [spec.name for spec in exported.signature.outputs] == ["pooled", "best"]
    assert exported.comparison is not None
    assert exported.comparison.outputs["best"].equal_share == 1.0
    assert any("float64" in note for note in exported.notes)


def test_module_that_cannot_vary_its_batch_gets_a_fixed_one(factories: Path, tmp_path: Path) -> None:
    exported = export(f"{factories}:fixed_batch", tmp_path / "m.onnx")
    assert exported.signature.inputs[0].shape == (1, 8)
    assert not exported.signature.batch_is_dynamic
    assert any("the batch is fixed at 1" in note for note in exported.notes)


def test_lists_of_inputs_and_the_batch_as_given(factories: Path, tmp_path: Path) -> None:
    exported = export(f"{factories}:fixed_batch_of_four", tmp_path / "m.onnx")
    assert [spec.describe() for spec in exported.signature.inputs] == [
        "feats_0 float32 [4, 3]",
        "feats_1 float32 [4, 5]",
    ]
    assert [spec.name for spec in exported.signature.outputs] == ["output_0", "output_1"]


def run_program(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a saved program by ONNX names, as `modelwright-call.json` in it maps them."""
    import torch

    files = {"modelwright-call.json": ""}
    program = torch.export.load(str(path), extra_files=files)
    assert program.example_inputs is None, "a user's samples must not be shipped with the weights"
    call = json.loads(files["modelwright-call.json"])
    constants = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    flat = [getattr(constant, "value", None) for constant in constants]
    for name, place in call["inputs"].items():
        flat[place] = torch.from_numpy(feeds[name])
    tree = torch.utils._pytree
    args, kwargs = tree.tree_unflatten(flat, program.call_spec.in_spec)
    outputs = tree.tree_leaves(program.module()(*args, **kwargs))
    return {name: outputs[place].detach().numpy() for name, place in call["outputs"].items()}


@pytest.mark.parametrize("function", ["dict_inputs", "fixed_batch_of_four"])
def test_program_beside_the_model_gives_its_outputs(factories: Path, tmp_path: Path, function: str) -> None:
    exported = export(f"{factories}:{function}", tmp_path / "m.onnx")
    assert exported.program_path is not None
    rng = np.random.default_rng(0)
    for rows in (1, 3) if exported.signature.batch_is_dynamic else (4,):
        feeds = {
            spec.name: rng.integers(0, 11, (rows, *spec.shape[1:]))
            if spec.dtype == "int64"
            else rng.standard_normal((rows, *spec.shape[1:])).astype(np.float32)
            for spec in exported.signature.inputs
        }
        with ReferenceModel(exported.model_path) as model:
            expected = model.run(feeds)
        outputs = run_program(exported.program_path, feeds)
        assert list(outputs) == list(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_program_is_checked_and_replaced_with_its_model(factories: Path, tmp_path: Path) -> None:
    exported = export(f"{factories}:two_inputs", tmp_path / "m.onnx")
    model, before = (tmp_path / "m.onnx").read_bytes(), exported.program_path.read_bytes()
    exported.program_path.write_bytes(before + b"more")
    with pytest.raises(BadInputError, match=r"m\.program\.pt2 was changed"):
        load_exported(tmp_path / "m.onnx")
    exported.program_path.write_bytes(before)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(BadInputError, match=r"m\.program\.pt2 exists"):
        export(f"{factories}:dict_inputs", tmp_path / "m.onnx")
    assert exported.program_path.read_bytes() == before
    # Replaced by a model that has no program: the old one goes.
    (tmp_path / "m.onnx").write_bytes(model)
    replaced = export(models.make_cnn(tmp_path / "cnn.onnx"), tmp_path / "m.onnx", overwrite=True)
    assert (replaced.program, replaced.program_path) == (None, None)
    names = ["cnn.onnx", "m.export.json", "m.made-from.json", "m.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    data = json.loads((tmp_path / "m.export.json").read_text())
    (tmp_path / "m.export.json").write_text(json.dumps(data | {"program": "../m.program.pt2"}))
    with pytest.raises(BadInputError, match="program: expected the name of a file inside the folder"):
        load_exported(tmp_path / "m.onnx")


@pytest.mark.slow
def test_saved_program(factories: Path, tmp_path: Path) -> None:
    code = f"""
        import sys, torch
        sys.path.insert(0, {str(factories.parent)!r})
        from net import Two
        batch = {{0: torch.export.Dim.DYNAMIC}}
        args = (torch.randn(2, 4), torch.randn(2, 4))
        program = torch.export.export(Two().eval(), args, dynamic_shapes=(batch, batch))
        torch.export.save(program, {str(tmp_path / "m.pt2")!r})
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, capture_output=True)
    exported = export(tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert [spec.describe() for spec in exported.signature.inputs] == [
        "left float32 [batch, 4]",
        "right float32 [batch, 4]",
    ]
    assert exported.source.kind == "pt2"
    left, right = (np.full((1, 4), value, np.float32) for value in (1, 2))
    outputs = run_program(exported.program_path, {"left": left, "right": right})
    assert set(outputs) == {spec.name for spec in exported.signature.outputs}
    broken = tmp_path / "broken.pt2"
    broken.write_bytes((tmp_path / "m.pt2").read_bytes()[:2000])
    with pytest.raises(BadInputError, match=r"torch\.export program"):
        export(broken, tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        ("light.py:fails", BadInputError, "ValueError: no weights here"),
        ("light.py:not_a_module", BadInputError, "returned int"),
        ("net.py:without_examples", BadInputError, "gives no example inputs, and there are no samples"),
        ("net.py:wrong_examples", BadInputError, r"left \[2, 3\]"),
        ("net.py:inconsistent", BuildFailedError, "output output has a relative L2 error"),
        ("light.py:dies", BuildFailedError, r"crashed during running light.py:dies.*SIGABRT"),
        ("light.py:absent", BadInputError, "defines no function absent"),
    ],
)
def test_factories_that_fail(factories: Path, tmp_path: Path, spec: str, kind: type, text: str) -> None:
    with pytest.raises(kind, match=text):
        export(factories.parent / spec, tmp_path / "sub" / "m.onnx")
    assert list(tmp_path.iterdir()) == [], "a failed export leaves nothing, not even the folder"


def test_interrupt_leaves_nothing(factories: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "m.onnx"
    code = (
        f"from modelwright.exporters import export\nexport({str(factories.parent / 'light.py:sleeps')!r}, {str(out)!r},"
        " progress=lambda text: print(text, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"running light.py:sleeps" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        process.wait(timeout=20)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_onnx_is_passed_through_unchanged(tmp_path: Path) -> None:
    source = models.make_cnn(tmp_path / "cnn.onnx")
    exported = export(source, tmp_path / "out" / "m.onnx")
    assert exported.model_path.read_bytes() == source.read_bytes()
    assert exported.signature.inputs[0].describe() == "x float32 [batch, 3, 12, 12]"
    assert exported.comparison is None
    assert exported.comparison_reason
    assert find_or_export(source, tmp_path / "out" / "m.onnx").reused
    with pytest.raises(BadInputError, match="exists"):
        export(models.make_cnn(tmp_path / "cnn2.onnx"), tmp_path / "out" / "m.onnx")
    export(source, tmp_path / "out" / "m.onnx", overwrite=True)
    before = source.read_bytes()
    in_place = export(source, source)
    assert (source.read_bytes(), in_place.sha256) == (before, exported.sha256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn.export.json", "cnn.onnx", "cnn2.onnx", "out"]


def save_external(folder: Path, location: str = "weights.bin") -> Path:
    folder.mkdir()
    model = onnx.load(models.make_cnn(folder / "m.onnx"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        graph = onnx.load(folder / "m.onnx", load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "m.onnx").write_bytes(graph.SerializeToString())
    return folder / "m.onnx"


def test_external_data_stay_external(tmp_path: Path) -> None:
    source = save_external(tmp_path / "in")
    exported = export(source, tmp_path / "out" / "net.onnx")
    assert set(exported.files) == {"net.onnx", "weights.bin"}
    onnx.load(exported.model_path)  # refuses data files with several hard links
    with ReferenceModel(exported.model_path) as model:
        assert model.run({"x": np.ones((2, 3, 12, 12), np.float32)})["y"].shape == (2, 5)
    moved = export(source, tmp_path / "elsewhere" / "other.onnx")
    assert moved.sha256 == exported.sha256
    # Replaced by a model without data files: the old ones go.
    export(models.make_cnn(tmp_path / "c.onnx"), exported.model_path, overwrite=True)
    names = ["net.export.json", "net.made-from.json", "net.onnx"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    (tmp_path / "elsewhere" / "weights.bin").write_bytes(b"changed")
    with pytest.raises(BadInputError, match="was changed"):
        load_exported(moved.model_path)


def test_hostile_external_data(tmp_path: Path) -> None:
    for number, location in enumerate(("../secret.bin", "/etc/passwd", "a/../../x", "")):
        with pytest.raises(BadInputError, match="outside the model's folder"):
            export(save_external(tmp_path / str(number), location), tmp_path / "o.onnx")
    missing = save_external(tmp_path / "missing")
    (missing.parent / "weights.bin").unlink()
    with pytest.raises(BadInputError, match=r"weights\.bin, which is missing"):
        export(missing, tmp_path / "o.onnx")
    short = save_external(tmp_path / "short")
    os.truncate(short.parent / "weights.bin", 100)
    with pytest.raises(BadInputError, match="cut off"):
        export(short, tmp_path / "o.onnx")
    linked = save_external(tmp_path / "linked")
    (linked.parent / "weights.bin").rename(tmp_path / "away.bin")
    (linked.parent / "weights.bin").symlink_to("../away.bin")
    with pytest.raises(BadInputError, match="link that leaves"):
        export(linked, tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_truncated_models_are_refused_at_every_length(tmp_path: Path) -> None:
    whole = models.make_cnn(tmp_path / "m.onnx").read_bytes()
    for length in (2, 40, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:length])
        with pytest.raises(BadInputError):
            export(path, tmp_path / "o.onnx")
        assert not (tmp_path / "o.onnx").exists()


def test_newer_opset_unknown_operator_and_bad_graph(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="opset 99"):
        export(models.make_cnn(tmp_path / "new.onnx", opset=99), tmp_path / "o.onnx")
    with pytest.raises(BadInputError, match=r"com\.example:Sorcery") as caught:
        export(models.make_foreign_operator(tmp_path / "foreign.onnx"), tmp_path / "o.onnx")
    assert "custom operators" in (caught.value.hint or "")
    nodes = [helper.make_node("Relu", ["absent"], ["y"], name="broken")]
    x, y = ("x", TensorProto.FLOAT, ["batch", 4]), ("y", TensorProto.FLOAT, ["batch", 4])
    with pytest.raises(BadInputError, match="cannot load it"):
        export(models.save(tmp_path / "bad.onnx", nodes, [x], [y], {}), tmp_path / "o.onnx")


def test_old_model_with_weights_among_the_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="head")]
    inputs = [("x", TensorProto.FLOAT, [None, 4]), ("w", TensorProto.FLOAT, [4, 3]), ("b", TensorProto.FLOAT, [3])]
    constants = {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    outputs = [("y", TensorProto.FLOAT, [None, 3])]
    source = models.save(tmp_path / "old.onnx", nodes, inputs, outputs, constants, opset=8, ir_version=3)
    exported = export(source, tmp_path / "m.onnx")
    assert [spec.describe() for spec in exported.signature.inputs] == ["x float32 [batch, 4]"]
    assert [spec.describe() for spec in exported.signature.outputs] == ["y float32 [batch, 3]"]
    assert (exported.num_parameters, exported.opset) == (15, 8)
    assert not exported.notes
    newer = models.save(tmp_path / "newer.onnx", nodes, inputs, outputs, constants, opset=17, ir_version=8)
    bytes_before = newer.read_bytes()
    (note,) = export(newer, tmp_path / "n.onnx").notes
    assert "2 weights listed as inputs too (w, b)" in note
    assert [value.name for value in onnx.load(tmp_path / "n.onnx").graph.input] == ["x"]
    # In its place a model is the user's, and stays so.
    (note,) = export(newer, newer).notes
    assert "2 weights are inputs too" in note
    assert newer.read_bytes() == bytes_before


def test_what_the_newest_onnx_saves_is_lowered_and_the_source_stays_its_own(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=1)],
        "g",
        [value],
        [helper.make_tensor_value_info("y", 1, ["batch", 4])],
    )
    source = tmp_path / "newest.onnx"
    onnx.save(helper.make_model(graph), source)  # with the versions of the onnx that is installed
    exported = export(source, tmp_path / "m.onnx")
    assert exported.source.files == {"newest.onnx": hashlib.sha256(source.read_bytes()).hexdigest()}
    with ReferenceModel(exported.model_path) as model:
        assert list(model.run({"x": np.ones((2, 4), np.float32)})) == ["y"]


def test_sloppy_but_sound_model_passes_with_a_note(tmp_path: Path) -> None:
    source = models.make_cnn(tmp_path / "m.onnx")
    model = onnx.load(source)
    model.graph.node[0].attribute.append(helper.make_attribute("unheard_of", 1))
    model.graph.name = ""
    source.write_bytes(model.SerializeToString())
    try:
        exported = export(source, tmp_path / "o.onnx")
    except BadInputError as error:
        assert "unheard_of" in f"{error.message} {error.detail}"  # noqa: PT017 - either way it must be named
    else:
        assert any("checker complains" in note for note in exported.notes)


@pytest.mark.parametrize(
    ("dtype", "shape", "text"),
    [
        (TensorProto.STRING, ["n", 4], "input x is string"),
        (TensorProto.BFLOAT16, ["n", 4], "input x is bfloat16"),
        (TensorProto.FLOAT, None, "not even a rank"),
    ],
)
def test_inputs_that_cannot_be_fed(tmp_path: Path, dtype: int, shape: list | None, text: str) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    source = models.save(tmp_path / "m.onnx", nodes, [("x", dtype, shape)], [("y", dtype, shape)], {})
    with pytest.raises(BadInputError, match=text):
        export(source, tmp_path / "o.onnx")


def test_sequence_output_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["s"])
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(BadInputError, match="output s is sequence"):
        export(tmp_path / "m.onnx", tmp_path / "o.onnx")


def test_hang_is_stopped(factories: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="did not answer within 2 s during running"):
        export(factories.parent / "light.py:sleeps", tmp_path / "m.onnx", timeout_s=2)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_function_may_yield_whole_inputs(tmp_path: Path) -> None:
    (tmp_path / "tagger.py").write_text(
        "import numpy as np\n"
        "from torch import nn\n"
        "class Tagger(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embed, self.lstm = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True)\n"
        "    def forward(self, tokens):\n"
        "        return self.lstm(self.embed(tokens))[0].mean(1)\n"
        "def create():\n"
        "    return Tagger()\n"
        "def samples():\n"
        "    for start in range(4):\n"
        "        yield {'tokens': np.arange(start, start + 6).reshape(1, 6)}\n"
    )
    path = materialize_samples(f"{tmp_path / 'tagger.py'}:samples", None, tmp_path / "samples")
    exported = export(f"{tmp_path / 'tagger.py'}:create", tmp_path / "m.onnx", samples=SampleRef(path=path))
    assert [spec.describe() for spec in exported.signature.inputs] == ["tokens int64 [batch, 6]"]


def test_a_second_comparison_exports_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Path(next(iter(examples.__path__))) / "digits"
    (tmp_path / "digits").mkdir()
    for name in ("model.py", "weights.safetensors", "samples.npz"):
        shutil.copy(digits / name, tmp_path / "digits" / name)
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELWRIGHT_EXPORTS_GB", "1")
    source = f"{tmp_path / 'digits' / 'model.py'}:create_model"
    chosen: dict[str, Any] = {"samples": tmp_path / "digits" / "samples.npz", "targets": ["ort-fp32"]}
    first = harness.compare(source, out=tmp_path / "first", effort="quick", **chosen)
    assert not first.source.reused

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an exporting process was started")

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "run_in_child", refuse)
        again = harness.compare(source, out=tmp_path / "first", effort="quick", **chosen)
        assert encode(again.source) == encode(first.source) | {"reused": True}
        built = build_targets(source, out=tmp_path / "second", **chosen)
        assert built.export is not None
        assert built.export.reused
        assert load_exported(tmp_path / "second" / "model" / "model.onnx").sha256 == first.source.onnx_sha256
        with pytest.raises(AssertionError, match="was started"):
            build_targets(source, out=tmp_path / "second", **chosen, fresh=True)
    # Weights that a native library reads decide as all else does.
    weights = tmp_path / "digits" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    built = build_targets(source, out=tmp_path / "second", **chosen, overwrite=True)
    assert built.export is not None
    assert not built.export.reused
    assert built.export.model.sha256 != first.source.onnx_sha256


READERS = """
import torch
from pathlib import Path

HERE = Path(__file__).parent

class Lazy(torch.nn.Module):
    def forward(self, x):
        return x * float((HERE / "scale.txt").read_text())

def lazy():
    return Lazy(), torch.ones(2, 4)

def loads():
    net = torch.nn.Linear(4, 4)
    net.load_state_dict(torch.load(HERE / "w.pt", weights_only=True))
    return net, torch.ones(2, 4)

def maps():
    net = torch.nn.Linear(4, 4)
    net.load_state_dict(torch.load(HERE / "w.pt", weights_only=True, mmap=True))
    return net, torch.ones(2, 4)

def program():
    net = torch.nn.Linear(4, 4)
    net.load_state_dict(torch.export.load(HERE / "net.pt2").state_dict)
    return net, torch.ones(2, 4)

def tensors():
    from safetensors.torch import load_model
    net = torch.nn.Linear(4, 4)
    load_model(net, HERE / "w.safetensors")
    return net, torch.ones(2, 4)
"""


@pytest.mark.slow
def test_files_that_torch_reads_decide(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "net.py").write_text(READERS)
    (tmp_path / "scale.txt").write_text("2.0")

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        net = torch.nn.Linear(4, 4)
        torch.save(net.state_dict(), tmp_path / "w.pt")
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        torch.export.save(torch.export.export(net, (torch.ones(2, 4),)), tmp_path / "net.pt2")

    files = {"lazy": "scale.txt", "loads": "w.pt", "maps": "w.pt", "program": "net.pt2", "tensors": "w.safetensors"}
    save(0)
    for function, name in files.items():
        out = tmp_path / f"{function}.onnx"
        assert not find_or_export(f"{tmp_path / 'net.py'}:{function}", out).reused
        assert find_or_export(f"{tmp_path / 'net.py'}:{function}", out).reused, "nothing has changed"
        assert f"source:{name}" in json.loads(out.with_suffix(".made-from.json").read_text())["inputs"]["files"]
