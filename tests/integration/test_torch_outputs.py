"""PyTorch modules that return more than tensors, or take more than rows: exported, or refused with the true reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import export

pytest.importorskip("torch")

NETS = """
import torch
from dataclasses import dataclass
from torch import nn

@dataclass
class Head:
    logits: torch.Tensor
    count: int

@dataclass
class Result:
    head: Head
    states: list

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 5)

class Structured(Net):
    def forward(self, x):
        y = self.linear(x)
        return Result(Head(y, 3), [y.tanh(), "text", y + 1])

class Numbers(Net):
    def forward(self, x):
        return {"logits": self.linear(x), "n": 3, "none": None}

class Opaque:
    def __init__(self, value):
        self.value = value

class Unknown(Net):
    def forward(self, x):
        return Opaque(self.linear(x))

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(10, 20, batch_first=True)
        self.gru = nn.GRU(12, 24, 2, batch_first=True)

class Packing(Recurrent):
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return last[0]

class Padded(Recurrent):
    def forward(self, x, lengths):
        outputs, _ = self.lstm(x)
        return outputs.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, outputs.shape[2]))[:, 0]

class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out, self.flat = nn.GRU(12, 24), nn.Linear(24, 3), nn.Linear(6, 3)

    def forward(self, sequence, flat):
        return self.out(self.rnn(sequence)[0][-1]) + self.flat(flat)


class Stateful(Recurrent):
    def forward(self, x, state):
        outputs, state = self.gru(x, state)
        return outputs[:, -1], state
"""


def run_export(folder: Path, name: str, **arrays: np.ndarray):
    (folder / "nets.py").write_text(NETS)
    np.savez(folder / "samples.npz", **arrays)
    samples = SampleRef(path=folder / "samples.npz")
    return export(f"{folder / 'nets.py'}:{name}", folder / "out" / "model.onnx", samples=samples)


def make_rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, *shape)).astype(np.float32)


@pytest.mark.slow
def test_dataclasses_are_flattened_and_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    exported = run_export(tmp_path, "Structured", x=make_rows(16))
    assert [spec.name for spec in exported.signature.outputs] == ["head_logits", "states_0", "states_1"]
    assert "output head.count is 3, of type int, no tensor: it is left out" in exported.notes
    assert "output states.1 is 'text', of type str, no tensor: it is left out" in exported.notes
    assert exported.comparison is not None
    assert exported.signature.batch_is_dynamic


@pytest.mark.slow
def test_numbers_beside_tensors_are_left_out_and_said(tmp_path: Path) -> None:
    exported = run_export(tmp_path, "Numbers", x=make_rows(16))
    assert [spec.name for spec in exported.signature.outputs] == ["logits"]
    assert [note for note in exported.notes if "left out" in note] == [
        "output n is 3, of type int, no tensor: it is left out"
    ]


def test_an_object_of_tensors_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BuildFailedError, match="it returns an object of type Opaque, of which torch does not know"
    ) as caught:
        run_export(tmp_path, "Unknown", x=make_rows(16))
    assert "a dataclass" in (caught.value.hint or "")


@pytest.mark.slow
def test_packing_is_named_and_what_the_hint_says_gives_the_same(tmp_path: Path) -> None:
    inputs = {"x": make_rows(9, 10), "lengths": np.array([9, 2, 5, 1, 7, 3])}
    with pytest.raises(BuildFailedError, match="it packs sequences") as caught:
        run_export(tmp_path, "Packing", **inputs)
    told = "outputs.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, outputs.shape[2]))"
    assert told in (caught.value.hint or "")
    assert told in NETS
    exported = run_export(tmp_path, "Padded", **inputs)
    namespace: dict = {}
    exec(NETS, namespace)
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        packed, padded = namespace["Packing"]()(**tensors), namespace["Padded"]()(**tensors)
    np.testing.assert_allclose(padded.numpy(), packed.numpy(), atol=1e-6)
    assert exported.comparison is not None


@pytest.mark.slow
def test_a_state_whose_batch_is_on_another_axis_is_taken_whole(tmp_path: Path) -> None:
    exported = run_export(tmp_path, "Stateful", x=make_rows(9, 12), state=make_rows(2, 1, 24))
    assert [spec.shape for spec in exported.signature.inputs] == [(1, 9, 12), (2, 1, 24)]
    assert any("batch is fixed at 1" in note and "Expected hidden size" in note for note in exported.notes)
    assert exported.comparison is not None
    assert exported.comparison.samples == 6


@pytest.mark.slow
def test_a_sequence_that_comes_first_is_no_batch(tmp_path: Path) -> None:
    exported = run_export(tmp_path, "TimeFirst", sequence=make_rows(9, 1, 12), flat=make_rows(6))
    assert [spec.shape for spec in exported.signature.inputs] == [(9, 1, 12), ("batch", 6)]
    assert exported.comparison is not None
    assert exported.comparison.samples == 6
