"""What calibration says of each activation, and the grids that follow of it for any number of bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.harness.mixing.grids import Floats, Grid, choose_grid, choose_scales, round_rows
from modelwright.harness.mixing.network import Layer, Network
from modelwright.harness.mixing.settings import Ranges
from modelwright.targets.quantization.statistics import FeedSource, TensorStatistics, collect_statistics


@dataclass(kw_only=True)
class Rounding:
    """How the tensors of a network are rounded, to any bits; what was once chosen is kept.

    Attributes:
        network: The float network.
        seen: Activation -> its statistics on the calibration samples.
        per_channel: Whether each output channel of a weight has a scale of its own.
        ranges: Where grids end.
        grids: Grids of activations that something else chose: (layer's output, tensor, bits) -> grid. They go before
            those that are chosen here.
    """

    network: Network
    seen: Mapping[str, TensorStatistics]
    per_channel: bool
    ranges: Ranges = "mse"
    grids: Mapping[tuple[str, str, int], Grid] = field(default_factory=dict)
    _chosen: dict[tuple[str, int], Grid] = field(default_factory=dict)
    _rounded: dict[tuple[str, int, int | None], Floats] = field(default_factory=dict)

    def grid(self, layer: Layer, tensor: str, bits: int) -> Grid:
        """Returns the grid of an activation that a layer reads."""
        own = self.grids.get((layer.output, tensor, bits))
        if own is not None:
            return own
        if (tensor, bits) not in self._chosen:
            self._chosen[tensor, bits] = choose_grid(self.seen[tensor], bits, self.ranges)
        return self._chosen[tensor, bits]

    def weight(self, layer: Layer, bits: int) -> Floats:
        """Returns a layer's weight, rounded."""
        key = (layer.operand, bits, layer.channel_axis)
        if key not in self._rounded:
            weight = self.network.weights[layer.operand]
            rows = layer.to_rows(weight, per_channel=self.per_channel)
            rounded = round_rows(rows, choose_scales(rows, bits, self.ranges), bits)
            self._rounded[key] = layer.from_rows(rounded, weight.shape)
        return self._rounded[key]


def calibrate(network: Network, feeds: FeedSource, scratch: Path) -> dict[str, TensorStatistics]:
    """Returns ranges and histograms of all activations that layers read.

    Raises:
        BuildFailedError: One is nothing but NaN or infinity.
    """
    names = list(dict.fromkeys(name for layer in network.layers for name in layer.activations.values()))
    return collect_statistics(network.model, names, feeds, scratch)
