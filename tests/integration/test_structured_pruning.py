"""Channels, neurons and heads that are really gone: known shapes, what is spared, and what cannot be traced."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compression_runs import run
from refusing import refused

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402

from modelwright.compression.data import open_data  # noqa: E402
from modelwright.compression.methods import parse_methods  # noqa: E402
from modelwright.compression.network import Network, count_macs, make_network  # noqa: E402
from modelwright.compression.objective import make_objective  # noqa: E402
from modelwright.compression.settings import Settings  # noqa: E402
from modelwright.compression.step import Task  # noqa: E402
from modelwright.compression.structured import StructuredPruning  # noqa: E402
from modelwright.exporters.torch.source import TorchSource  # noqa: E402
from modelwright.harness.building import build_targets  # noqa: E402


class Residual(nn.Module):
    """A convolution with a shortcut around it, which ties its channels to those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


class Attention(nn.Module):
    """Attention as vision transformers have it; its shapes come from the width, so that some heads may go."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        found = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1) @ v
        return self.proj(found.transpose(1, 2).reshape(batch, tokens, self.num_heads * self.head_dim))


class Transformer(nn.Module):
    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Any) -> Any:
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.head((x + self.mlp(x)).mean(1))


class Stubborn(Transformer):
    """Its attention cannot lose heads: it cuts by a number that is written into its code."""

    def forward(self, x: Any) -> Any:
        x = self.embed(x)
        heads = self.attention.qkv(self.norm(x)).reshape(len(x), -1, 12, 16).sum(2)
        return self.head((x + self.mlp(x)).mean(1) + heads.mean((1, 2))[:, None])


class Fixed(nn.Module):
    """Flattens by a number that is written into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 32, 3, padding=1)
        self.head = nn.Linear(32 * 64, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.convolution(x).view(-1, 32 * 64))


def prune(
    module: nn.Module, shape: tuple[int, ...], folder: Path, *, text: str = "prune:structured:0.5", **settings: Any
) -> tuple[Network, StructuredPruning]:
    torch.manual_seed(0)
    np.savez(
        folder / "train.npz",
        x=np.random.default_rng(0).standard_normal((32, *shape)).astype(np.float32),
        labels=np.arange(32) % 5,
    )
    network = make_network(TorchSource(name="net", module=module.eval(), args=(), kwargs={"x": torch.randn(2, *shape)}))
    data = open_data(folder / "train.npz", "train.npz", network.examples)
    task = Task(
        train=data, chosen=np.arange(32), held=np.arange(32), objective=make_objective("cross-entropy", data.answers),
        settings=Settings(**settings),
    )  # fmt: skip
    step = StructuredPruning(parse_methods([text])[0], task)
    step.prepare(network)
    return network, step


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_half_of_the_channels_of_a_network_with_a_shortcut_are_gone(tmp_path: Path, importance: str) -> None:
    network, _ = prune(Residual(), (3, 8, 8), tmp_path, importance=importance)
    shapes = {name: tuple(value.shape) for name, value in network.module.named_parameters() if value.dim() > 1}
    assert shapes == {
        "stem.0.weight": (16, 3, 3, 3), "body.0.weight": (32, 16, 3, 3), "body.2.weight": (16, 32, 3, 3),
        "head.weight": (5, 16),
    }  # fmt: skip
    assert count_macs(network) == 64 * (16 * 27 + 32 * 16 * 9 + 16 * 32 * 9) + 5 * 16
    assert count_macs(make_network(TorchSource(name="net", module=Residual(), args=(), kwargs=network.examples))) == (
        64 * (32 * 27 + 64 * 32 * 9 + 32 * 64 * 9) + 5 * 32
    )


def test_the_channels_that_are_largest_stay(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 5))
    with torch.no_grad():
        for row in range(16):
            module[0].weight[row] = (row % 2) + 0.01 * row + 0.1
            module[2].weight[:, row] = 1.0 + row % 2
    wanted = module[0].weight[1::2].detach().clone()
    network, _ = prune(Named(module), (4,), tmp_path)
    assert torch.equal(network.module.body[0].weight, wanted)


class Named(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return self.body(x)


def test_heads_are_removed_and_the_attention_knows(tmp_path: Path) -> None:
    network, step = prune(Transformer(), (7, 6), tmp_path)
    attention = network.module.attention
    assert (attention.num_heads, attention.head_dim) == (2, 16)
    assert attention.qkv.weight.shape == (96, 32)
    assert network.module.mlp[0].weight.shape == (64, 32)
    assert network.module.head.weight.shape == (5, 32)
    assert not any("attention stays" in note for note in step.notes)


def test_attention_that_cannot_lose_heads_stays_and_the_rest_is_pruned(tmp_path: Path) -> None:
    network, step = prune(Stubborn(), (7, 6), tmp_path)
    assert network.module.attention.qkv.weight.shape[0] == 192
    assert network.module.mlp[0].weight.shape[0] == 64
    assert any("attention stays as it is" in note for note in step.notes)


def test_a_module_that_cannot_be_traced_is_refused_and_doing_as_told_helps(tmp_path: Path) -> None:
    hint = refused(lambda: prune(Fixed(), (3, 8, 8), tmp_path), "net cannot be pruned by channels")
    assert "x.flatten(1)" in hint

    class Free(Fixed):
        def forward(self, x: Any) -> Any:
            return self.head(self.convolution(x).flatten(1))

    network, _ = prune(Free(), (3, 8, 8), tmp_path)
    assert network.module.head.weight.shape == (5, 16 * 64)


def test_a_module_that_cannot_be_copied_is_refused_as_it_was(tmp_path: Path) -> None:
    module = Residual()
    module.lock = threading.Lock()
    refused(lambda: prune(module, (3, 8, 8), tmp_path), "net cannot be pruned by channels: TypeError: cannot pickle")


class Mixed(nn.Module):
    """All channels are parted, and shuffled in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        first, second = torch.relu(self.convolution(x)).chunk(2, 1)
        both = torch.cat((second, first), 1)
        batch, channels, *sides = both.shape
        return self.head(both.view(batch, 4, channels // 4, *sides).transpose(1, 2).flatten(1, 2).mean((2, 3)))


def test_channels_that_are_lost_track_of_are_not_said_to_be_fixed_sizes(tmp_path: Path) -> None:
    hint = refused(lambda: prune(Mixed(), (3, 8, 8), tmp_path), "net cannot be pruned by channels: IndexError")
    assert "a shuffle" in hint
    assert "x.flatten" not in hint


class HalfFixed(nn.Module):
    """The second convolution's channels are a number in the code; the first one's are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16 * 64, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.second(torch.relu(self.first(x))).view(-1, 16 * 64))


def test_layers_that_must_keep_their_channels_are_named_and_the_others_are_pruned(tmp_path: Path) -> None:
    network, step = prune(HalfFixed(), (3, 8, 8), tmp_path)
    assert network.module.first.weight.shape == (16, 3, 3, 3)
    assert network.module.second.weight.shape == (16, 16, 3, 3)
    assert any(note.startswith("second keep their channels, without some of which net fails") for note in step.notes)


def test_a_network_without_channels_to_spare_is_refused(tmp_path: Path) -> None:
    assert "prune:magnitude" in refused(lambda: prune(Named(nn.Linear(4, 5)), (4,), tmp_path), "nothing can be removed")


DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.mark.slow
def test_digits_with_half_of_the_channels_are_built_for_every_runtime(tmp_path: Path) -> None:
    with np.load(DIGITS / "samples.npz") as arrays:
        order = np.random.default_rng(0).permutation(600)
        for name, chosen in (("train", order[:400]), ("test", order[400:])):
            np.savez(tmp_path / f"{name}.npz", **{key: array[chosen] for key, array in arrays.items()})
    made = run(
        tmp_path, "prune:structured:0.5", function=f"{DIGITS / 'model.py'}:create_model", epochs=4, lr=2e-3
    )  # fmt: skip
    record = made.record
    assert record.after.macs < 0.4 * record.before.macs
    assert record.after.parameters < 0.4 * record.before.parameters
    assert record.quality_after.value > 0.9
    targets = ("ort-fp32", "ort-int8", "openvino-int8")
    built = build_targets(str(made.folder), targets=targets, samples=str(tmp_path / "test.npz"), out=tmp_path / "built")
    assert set(built.artifacts) == set(targets)
