"""The ways to quantize that the OpenVINO INT8 target tries."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class NncfCandidate:
    """One way to call NNCF.

    Attributes:
        name: For people.
        preset: `performance` (symmetric activations) or `mixed` (asymmetric ones); None leaves NNCF's default, which is
            `mixed` for a transformer.
        min_max: Take the ranges of all samples as they are, instead of the mean over samples.
        corrects_biases: Whether biases make up for the mean error of what is rounded. On few samples that does harm: a
            ResNet-8 calibrated on 256 images had 0.054 of noise with it, and 0.017 without.
        fast_bias_correction: False for the slower, more accurate one.
        smooth_quant_alpha: How much of the activations' range moves into the weights; None leaves NNCF's default.
        rounded: Whether the weights are rounded for what they make of the calibration samples; see
            `quantization.rounding`. NNCF finds the same integers again.
        float_layers: Layers that are left in float from the start.
    """

    name: str
    preset: str | None = None
    min_max: bool = False
    corrects_biases: bool = True
    fast_bias_correction: bool = True
    smooth_quant_alpha: float | None = None
    rounded: bool = False
    float_layers: tuple[str, ...] = ()

    def with_fast_correction(self) -> NncfCandidate:
        """Returns the same with biases that make up for one layer's rounding each, and not for that before it."""
        if self.fast_bias_correction:
            return self
        name = f"{self.name.replace(', accurate bias correction', '')}, fast bias correction"
        return replace(self, name=name, fast_bias_correction=True)

    def keeping_biases(self) -> NncfCandidate:
        """Returns the same with biases as they are."""
        if not self.corrects_biases:
            return self
        return replace(self, name=f"{self.name}, biases as they are", corrects_biases=False)

    def sparing(self, recurrent: tuple[str, ...]) -> NncfCandidate:
        """Returns the same with the recurrent layers in float."""
        return replace(self, name=f"{self.name}, recurrent layers in float", float_layers=recurrent)


DEFAULT = NncfCandidate(name="NNCF's default")
"""What the vendor's plain call makes: always among the candidates."""
Groups = tuple[tuple[NncfCandidate, ...], ...]
"""All of a group are tried and the closest to FP32 is taken, as they make the same kernels run. The next is slower
(asymmetric activations: 8 % of a small classifier) or takes longer to build; it is tried where none is good."""
CONVOLUTIONAL: Groups = (
    (
        DEFAULT,
        NncfCandidate(
            name="symmetric, full ranges, rounded weights",
            preset="performance",
            min_max=True,
            corrects_biases=False,
            rounded=True,
        ),
        NncfCandidate(name="symmetric, full ranges", preset="performance", min_max=True, corrects_biases=False),
    ),
    (
        NncfCandidate(
            name="asymmetric, full ranges, rounded weights",
            preset="mixed",
            min_max=True,
            corrects_biases=False,
            rounded=True,
        ),
        NncfCandidate(name="asymmetric, full ranges", preset="mixed", min_max=True, corrects_biases=False),
        NncfCandidate(name="asymmetric, corrected biases", preset="mixed", min_max=True),
    ),
    (NncfCandidate(name="asymmetric, accurate bias correction", preset="mixed", fast_bias_correction=False),),
)
TRANSFORMER: Groups = (
    (
        DEFAULT,
        NncfCandidate(name="SmoothQuant 0.7, full ranges", smooth_quant_alpha=0.7, min_max=True, corrects_biases=False),
        NncfCandidate(name="full ranges", min_max=True, corrects_biases=False),
    ),
    (
        NncfCandidate(
            name="SmoothQuant 0.5, full ranges, accurate bias correction",
            smooth_quant_alpha=0.5,
            min_max=True,
            fast_bias_correction=False,
        ),
    ),
)


BF16_INSTRUCTION_SETS = frozenset({"avx512_bf16", "amx_bf16"})
