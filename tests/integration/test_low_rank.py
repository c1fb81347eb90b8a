"""Large layers as two thin ones: exact where the weights are of low rank, and never where it does not pay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusing import refused

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from modelwright.compression.low_rank import LowRank, find_rank, split_layer  # noqa: E402
from modelwright.compression.methods import parse_methods  # noqa: E402
from modelwright.compression.network import Network, count_macs, make_network  # noqa: E402
from modelwright.exporters.torch.source import TorchSource  # noqa: E402


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.second = nn.Linear(128, 128)
        self.small = nn.Linear(128, 16)
        self.last = nn.Linear(16, 64)

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.small(torch.relu(self.second(torch.relu(self.first(x)))))))


def cut(module: nn.Module, ratio: float = 0.5) -> tuple[Network, LowRank]:
    network = make_network(TorchSource(name="net", module=module.eval(), args=(), kwargs={"x": torch.randn(2, 64)}))
    step = LowRank(parse_methods([f"low-rank:{ratio}"])[0], None)  # type: ignore[arg-type]  # it asks for no data
    step.prepare(network)
    return network, step


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(64, 48),
        nn.Conv2d(16, 48, 3, stride=2, padding=1),
        nn.Conv2d(32, 48, 3, dilation=2, padding="same", padding_mode="reflect", bias=False),
    ],
)
def test_weights_of_low_rank_are_split_without_loss(layer: nn.Module) -> None:
    torch.manual_seed(0)
    rows = len(layer.weight)
    with torch.no_grad():
        weight = torch.randn(rows, 8) @ torch.randn(8, layer.weight[0].numel())
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        x = torch.randn(2, 64) if isinstance(layer, nn.Linear) else torch.randn(2, layer.in_channels, 9, 9)
        torch.testing.assert_close(split_layer(layer, 8)(x), layer(x), rtol=1e-3, atol=1e-3)


def test_what_is_cut_is_the_smallest_singular_values() -> None:
    layer = nn.Linear(32, 32, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.arange(32, 0, -1.0)))
    made = split_layer(layer, 8)
    torch.testing.assert_close(
        made[1].weight @ made[0].weight, torch.diag(torch.tensor([32.0, 31, 30, 29, 28, 27, 26, 25] + [0] * 24))
    )


def test_large_layers_are_cut_and_those_of_the_outputs_stay() -> None:
    network, step = cut(Net())
    layers = {name: tuple(value.shape) for name, value in network.module.named_parameters() if name.endswith("weight")}
    # 64 * 128 / 2 / (64 + 128) = 21, so 16; 128 * 128 / 2 / 256 = 32; 128 * 16 / 2 / 144 = 7, so none.
    assert layers == {
        "first.0.weight": (16, 64), "first.1.weight": (128, 16), "second.0.weight": (32, 128),
        "second.1.weight": (128, 32), "small.weight": (16, 128), "last.weight": (64, 16),
    }  # fmt: skip
    assert count_macs(network) == 16 * 192 + 32 * 256 + 16 * 128 + 64 * 16
    assert "first to rank 16 of 64" in step.notes[0]


def test_tied_weights_stay_tied() -> None:
    module = Net()
    module.twin = nn.Linear(128, 128)
    module.twin.weight = module.second.weight
    network, _ = cut(module)
    assert network.module.twin.weight is network.module.second.weight


def test_groups_and_small_layers_have_no_rank() -> None:
    assert find_rank(nn.Conv2d(64, 64, 3, groups=64), 0.5) == 0
    assert find_rank(nn.Linear(16, 16), 0.5) == 0
    assert find_rank(nn.Conv2d(64, 64, 1), 0.5) == 16


def test_a_network_of_small_layers_is_refused(tmp_path: Path) -> None:
    del tmp_path
    module = Net()
    assert "take less away" in refused(lambda: cut(module, 0.95), "no layer of net is large enough")
    cut(module, 0.3)
