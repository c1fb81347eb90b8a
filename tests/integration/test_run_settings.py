"""Settings of runtimes that a user gives: in force where they say so, and told beside what ran with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import models
import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness import compare
from modelwright.targets.pytorch.settings import apply_chosen, place_inputs, place_weights, read_chosen


@pytest.mark.slow
def test_compare_runs_a_target_as_it_is_told_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the baseline")
    found = compare(
        models.make_cnn(tmp_path / "cnn.onnx"),
        samples=models.make_samples(tmp_path / "samples.npz", x=(3, 12, 12)),
        out=tmp_path / "out",
        targets=["ort-fp32", "ort-int8"],
        settings=["ort-fp32:graph-level=disabled"],
        effort="quick",
    )
    rows = {row.target: row for row in found.measured}
    assert {name: dict(row.settings.options) for name, row in rows.items() if row.settings} == {
        "ort-fp32": {"graph-level": "disabled"},
        "ort-int8": {},
    }
    executed = rows["ort-fp32"].precision_executed
    assert executed is not None
    assert "ORT_DISABLE_ALL" in str(executed.facts["settings"])
    assert any("ort-fp32: 1 thread, graph-level=disabled; ort-int8: 1 thread" in text for text in found.warnings)


def test_pytorch_is_set_as_chosen_and_back() -> None:
    torch = pytest.importorskip("torch", reason="it is PyTorch that is set")

    def read(chosen: dict[str, bool]) -> list[str]:
        apply_chosen(torch, chosen, compiled=True)
        return list(read_chosen(torch, torch.nn.Module(), dict.fromkeys(names, True)).values())

    names = ("onednn", "denormals-as-zero", "freezing")
    with ThreadPoolExecutor(1) as thread:  # what counts as zero does so in its thread
        told = [thread.submit(read, chosen).result() for chosen in ({}, {"onednn": False}, dict.fromkeys(names, True))]
        assert told == [["True", "False", "False"], ["False", "False", "False"], ["True"] * 3]
        assert thread.submit(read, {}).result() == told[0]
    with pytest.raises(BadInputError, match="no setting 'freezing'"):
        apply_chosen(torch, {"freezing": True}, compiled=False)


def test_channels_lie_last_in_weights_and_inputs_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="it is PyTorch that is set")
    image, vector = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4)
    module, chosen = torch.nn.Conv2d(3, 5, 3), {"channels-last": True}
    placed = place_weights(torch, module, chosen)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert read_chosen(torch, placed, chosen) == {"Tensor.to(memory_format=torch.channels_last)": "1 weights"}
    taken = place_inputs(torch, lambda *tensors: tensors, chosen)(image, vector)
    assert taken[0].is_contiguous(memory_format=torch.channels_last)
    assert not taken[0].is_contiguous()
    assert taken[1] is vector
    call = placed.forward
    assert place_inputs(torch, call, {}) == call
