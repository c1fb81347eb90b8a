"""What PyTorch sources are refused for; then the hint is followed, and it helps. See `refusals/`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusing import refused

from modelwright.core.errors import BadInputError
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import export
from modelwright.exporters.source import parse_source

NETS = """
import torch
from torch import nn

def needs_a_width(width):
    return nn.Linear(width, 4)

def has_a_width(width=4):
    return nn.Linear(width, 4)

def reads_nothing():
    return nn.Linear(None + 1, 4)

def alone():
    return nn.Linear(4, 4)

def with_examples():
    return nn.Linear(4, 4), (torch.randn(2, 4),)

def scripted():
    return torch.jit.script(nn.Linear(4, 4))

def weights():
    return nn.Linear(4, 4).state_dict()

class Two(nn.Module):
    def forward(self, left, right):
        return left @ right

def by_position():
    return Two(), (torch.randn(2, 4),)

def by_name():
    return Two(), {"right": torch.randn(4, 2), "left": torch.randn(3, 4)}

def wrong_sizes():
    return nn.Linear(4, 4), torch.randn(2, 5)

class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1

class Choosing(nn.Module):
    def forward(self, x):
        return torch.where(x.sum() > 0, x * 2, x - 1)

class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)

class Quiet(nn.Module):
    def forward(self, x):
        return x + x.mean()

class Eigenvalues(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x @ x.mT)

class Sums(nn.Module):
    def forward(self, x):
        return (x @ x.mT).sum(-1)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return path


def load(nets: Path, function: str, samples: Path | None = None) -> Any:
    """Runs a factory as the export's child does, without a conversion."""
    from modelwright.exporters.torch.source import load_factory
    from modelwright.exporters.trace import Trace

    ref = None if samples is None else SampleRef(path=samples)
    return load_factory(nets, function, ref, Trace(nets.parent, []))


def test_a_python_file_is_given_with_one_of_its_functions(nets: Path) -> None:
    hint = refused(lambda: parse_source(nets), "name the function in it")
    told = re.findall(r"\S+\.py:\w+", hint)
    assert f"{nets}:alone" in told
    assert parse_source(f"{nets}:alone").function == "alone"
    nearest = re.search(r"\S+\.py:\w+", refused(lambda: parse_source(f"{nets}:lone"), "defines no function lone"))
    assert nearest
    assert nearest[0] == f"{nets}:alone"


def test_a_factory_is_called_without_arguments(nets: Path) -> None:
    hint = refused(lambda: load(nets, "needs_a_width"), "needs_a_width failed: TypeError")
    assert hint == "it is called without arguments: give all parameters of needs_a_width a default"
    assert "the folder that you are in" in refused(lambda: load(nets, "reads_nothing"), "reads_nothing failed: TypeErr")
    refused(lambda: load(nets, "has_a_width"), "gives no example inputs")


def test_example_inputs_come_from_the_factory_or_from_samples(nets: Path, tmp_path: Path) -> None:
    hint = refused(lambda: load(nets, "alone"), "gives no example inputs, and there are no samples")
    assert "return (module, example_inputs) from it, or add --samples" in hint
    assert load(nets, "with_examples").kwargs["input"].shape == (2, 4)
    np.savez(tmp_path / "s.npz", input=np.ones((3, 4), np.float32))
    assert load(nets, "alone", tmp_path / "s.npz").kwargs["input"].shape == (2, 4)


def test_arrays_are_named_after_the_parameters_of_forward(nets: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, x=np.ones((3, 4), np.float32))
    hint = refused(lambda: load(nets, "alone", path), "the arrays x do not match the inputs of nets.py:alone: input")
    assert "after the parameters of the module's forward" in hint
    np.savez(path, input=np.ones((3, 4), np.float32))
    load(nets, "alone", path)


@pytest.mark.parametrize(
    ("function", "words", "told", "mended"),
    [
        ("scripted", "gives a TorchScript module", "give the nn.Module that it was scripted", "with_examples"),
        ("weights", "returned OrderedDict, not an nn.Module", "return the module, or", "with_examples"),
        ("by_position", "do not fit forward", "or a dict by their names", "by_name"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_factory_gives_is_what_the_hint_says(
    nets: Path, function: str, words: str, told: str, mended: str
) -> None:
    assert told in refused(lambda: load(nets, function), words)
    load(nets, mended)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "words", "told", "mended"),
    [
        ("wrong_sizes", "fails on its example inputs", "names, shapes and dtypes", "with_examples"),
        ("Branching", "cannot capture", "use torch.where", "Choosing"),
        ("Noisy", "does not follow it", "on randomness", "Quiet"),
        ("Eigenvalues", "cannot be converted to ONNX", "replace that operation by one that has an ONNX", "Sums"),
    ],
)
def test_a_module_is_written_as_the_hint_says(
    nets: Path, tmp_path: Path, wrong: str, words: str, told: str, mended: str
) -> None:
    def act(function: str) -> Any:
        given = samples if "_" not in function else None
        return export(f"{nets}:{function}", tmp_path / "out" / "m.onnx", samples=given)

    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((8, 4, 4)).astype(np.float32))
    samples = SampleRef(path=tmp_path / "s.npz")
    assert told in refused(lambda: act(wrong), words)
    assert act(mended).comparison is not None


@pytest.mark.slow
def test_a_program_without_example_inputs_takes_samples(tmp_path: Path) -> None:
    """As it was called: one tensor by position, one by name, and a number that was captured with them."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, scale: int, *, other: Any) -> Any:
            return x * scale + other

    tensor = torch.ones(2, 4)
    program = torch.export.export(Net(), (tensor, 3), {"other": tensor})
    program.example_inputs = None
    torch.export.save(program, tmp_path / "m.pt2")
    out = tmp_path / "out" / "m.onnx"
    hint = refused(lambda: export(tmp_path / "m.pt2", out), "was saved without example inputs, and there are no")
    assert hint.startswith("add --samples")
    rows = np.random.default_rng(0).standard_normal((4, 2, 4)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=rows[:, 0], other=rows[:, 1])
    exported = export(tmp_path / "m.pt2", out, samples=SampleRef(path=tmp_path / "s.npz"))
    assert [spec.name for spec in exported.signature.inputs] == ["x", "other"]
    assert exported.comparison is not None


@pytest.mark.parametrize(("name", "width"), [("input", 5), ("image", 4)])
def test_samples_that_do_not_fit_are_told_before_the_conversion_with_the_batch_open(
    tmp_path: Path, name: str, width: int
) -> None:
    """They were found unfit after it, which was then done once more with the batch of the example inputs."""
    (tmp_path / "nets.py").write_text(NETS)
    np.savez(tmp_path / "samples.npz", **{name: np.zeros((8, width), np.float32)})
    phases: list[str] = []
    with pytest.raises(BadInputError) as caught:
        export(
            f"{tmp_path / 'nets.py'}:with_examples",
            tmp_path / "m.onnx",
            samples=SampleRef(path=tmp_path / "samples.npz"),
            progress=phases.append,
        )
    assert "input float32 [batch, 4]" in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.detail is None
    assert "capturing the module with torch.export" in phases
    assert not [phase for phase in phases if "ONNX" in phase or "fixed batch" in phase]
