"""What was exported once is found again, for as long as nothing that decided it has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelwright import examples, harness
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import load_exported
from modelwright.exporters import exporting
from modelwright.exporters.exporting import find_or_export
from modelwright.harness import request
from modelwright.harness.building import build_targets
from modelwright.harness.run.effort import Effort


@pytest.mark.slow
def test_a_second_comparison_exports_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Path(next(iter(examples.__path__))) / "digits"
    (tmp_path / "digits").mkdir()
    for name in ("model.py", "weights.safetensors", "samples.npz"):
        shutil.copy(digits / name, tmp_path / "digits" / name)
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELWRIGHT_EXPORTS_GB", "1")
    monkeypatch.setattr(request, "get_effort", lambda _name: Effort(name="test", rounds=6, window_s=0.005))
    source = f"{tmp_path / 'digits' / 'model.py'}:create_model"
    chosen: dict[str, Any] = {"samples": tmp_path / "digits" / "samples.npz", "targets": ["ort-fp32"]}
    first = harness.compare(source, out=tmp_path / "first", **chosen)
    assert not first.source.reused

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an exporting process was started")

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "run_in_child", refuse)
        again = harness.compare(source, out=tmp_path / "first", **chosen)
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
