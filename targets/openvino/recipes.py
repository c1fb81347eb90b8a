"""The ways to quantize that the OpenVINO INT8 target tries."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class NncfCandidate:
    """One way to call NNCF.

    Attributes:
        name: For people.
        preset: `performance` (symmetric activations) or `mixed` (asymmetric ones).
        min_max: Take the ranges of all samples as they are, instead of the mean over samples.
        fast_bias_correction: False for the slower, more accurate one.
        smooth_quant_alpha: How much of the activations' range moves into the weights; None leaves NNCF's default.
        float_layers: Layers that are left in float from the start.
    """

    name: str
    preset: str
    min_max: bool = False
    fast_bias_correction: bool = True
    smooth_quant_alpha: float | None = None
    float_layers: tuple[str, ...] = ()

    def sparing(self, recurrent: tuple[str, ...]) -> NncfCandidate:
        """Returns the same with the recurrent layers in float."""
        return replace(self, name=f"{self.name}, recurrent layers in float", float_layers=recurrent)


CONVOLUTIONAL = (
    NncfCandidate(name="symmetric", preset="performance"),
    NncfCandidate(name="asymmetric, full ranges", preset="mixed", min_max=True),
    NncfCandidate(name="asymmetric, accurate bias correction", preset="mixed", fast_bias_correction=False),
)
TRANSFORMER = (
    NncfCandidate(name="SmoothQuant 0.95", preset="mixed", smooth_quant_alpha=0.95),
    NncfCandidate(name="SmoothQuant 0.7, full ranges", preset="mixed", smooth_quant_alpha=0.7, min_max=True),
    NncfCandidate(
        name="SmoothQuant 0.5, full ranges, accurate bias correction",
        preset="mixed",
        smooth_quant_alpha=0.5,
        min_max=True,
        fast_bias_correction=False,
    ),
)


BF16_INSTRUCTION_SETS = frozenset({"avx512_bf16", "amx_bf16"})
