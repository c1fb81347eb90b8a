"""Exports of real PyTorch sources, in real child processes."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import onnx
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.exported import ExportedModel, load_exported
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import export

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


@pytest.fixture(scope="module")
def exported(factories: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportedModel]:
    """Exports what a function of the factories returns, once for all tests."""
    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda function: export(f"{factories}:{function}", folder / function / "m.onnx"))


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


@pytest.mark.slow
def test_samples_give_example_inputs_and_the_proof(factories: Path, tmp_path: Path) -> None:
    samples = models.make_samples(tmp_path / "s.npz", count=40, left=(4,), right=(4,))
    exported = export(f"{factories}:without_examples", tmp_path / "m.onnx", samples=SampleRef(path=samples))
    assert exported.comparison is not None
    assert (exported.comparison.samples, exported.comparison.on) == (32, "samples")
    wrong = models.make_samples(tmp_path / "w.npz", left=(4,), middle=(4,))
    with pytest.raises(BadInputError, match="left, right"):
        export(f"{factories}:without_examples", tmp_path / "n.onnx", samples=SampleRef(path=wrong))
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.slow
def test_dict_inputs_and_dict_outputs(exported: Callable[[str], ExportedModel]) -> None:
    model = exported("dict_inputs")
    assert [spec.describe() for spec in model.signature.inputs] == ["ids int64 [batch, 5]", "mask float32 [batch, 5]"]
    assert [spec.name for spec in model.signature.outputs] == ["pooled", "best"]
    assert model.comparison is not None
    assert model.comparison.outputs["best"].equal_share == 1.0
    assert any("float64" in note for note in model.notes)


@pytest.mark.slow
def test_module_that_cannot_vary_its_batch_gets_a_fixed_one(factories: Path, tmp_path: Path) -> None:
    exported = export(f"{factories}:fixed_batch", tmp_path / "m.onnx")
    assert exported.signature.inputs[0].shape == (1, 8)
    assert not exported.signature.batch_is_dynamic
    assert any("the batch is fixed at 1" in note for note in exported.notes)


@pytest.mark.slow
def test_lists_of_inputs_and_the_batch_as_given(exported: Callable[[str], ExportedModel]) -> None:
    model = exported("fixed_batch_of_four")
    assert [spec.describe() for spec in model.signature.inputs] == ["feats_0 float32 [4, 3]", "feats_1 float32 [4, 5]"]
    assert [spec.name for spec in model.signature.outputs] == ["output_0", "output_1"]


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
def test_program_beside_the_model_gives_its_outputs(exported: Callable[[str], ExportedModel], function: str) -> None:
    model = exported(function)
    assert model.program_path is not None
    rng = np.random.default_rng(0)
    for rows in (1, 3) if model.signature.batch_is_dynamic else (4,):
        feeds = {
            spec.name: rng.integers(0, 11, (rows, *spec.shape[1:]))
            if spec.dtype == "int64"
            else rng.standard_normal((rows, *spec.shape[1:])).astype(np.float32)
            for spec in model.signature.inputs
        }
        with ReferenceModel(model.model_path) as reference:
            expected = reference.run(feeds)
        outputs = run_program(model.program_path, feeds)
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
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it\n"
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
    assert process.returncode == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def test_hang_is_stopped(factories: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="did not answer within 2 s during running"):
        export(factories.parent / "light.py:sleeps", tmp_path / "m.onnx", timeout_s=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
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
