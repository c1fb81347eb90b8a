"""What an artifact may lose of FP32's writing: what the user allows, and what no one would ship."""

from __future__ import annotations

from modelwright.core.errors import BuildFailedError, LimitNotMetError, ModelwrightError
from modelwright.core.records.language_artifact import Estimate, LanguageProof
from modelwright.harness.language.decoding import find_fault

BROKEN = 0.5
"""Of perplexity's increase. Round-to-nearest at 4 bits costs small models 20 to 40 % (37.4 to 44 .. 52), which has its
users; dynamic quantization of their activations 150 %, and such a model writes other text."""
FLOAT_BROKEN = 0.02
"""Float artifacts round; BF16 changed perplexity by 0.1 %."""

BROKEN_NATS, FLOAT_BROKEN_NATS = 1.0, 0.02
"""Of the divergence from FP32: weights of 4 bits cost real models 0.2 and random ones 0.5, BF16 0.001."""


def describe_increase(increase: Estimate) -> str:
    """Returns `+0.52 % (+0.31 % to +0.74 %)`."""
    text = format_change(increase.value)
    if increase.ci95 is None:
        return text
    return f"{text} ({format_change(increase.ci95[0])} to {format_change(increase.ci95[1])})"


def format_change(share: float) -> str:
    """Returns a share as a signed percentage: `+0.52 %`, `-12 %`; what rounds to nothing is `0 %`."""
    size = abs(share) * 100
    digits = 2 if size < 1 else 1 if size < 10 else 0
    text = f"{share * 100:+.{digits}f}"
    return "0 %" if float(text) == 0 else f"{text} %"


class LossError(ModelwrightError):
    """An artifact loses too much of what FP32 writes.

    Attributes:
        proof: With its figures.
    """

    def __init__(self, message: str, proof: LanguageProof, exit_code: int, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.proof = proof
        self.exit_code = exit_code


def find_loss(name: str, proof: LanguageProof, *, is_float: bool) -> LossError | None:
    """Returns why an artifact is not delivered: it loses more than the user allows, or is broken; None where it may be.

    Args:
        name: Of its target.
        proof: What it was found to lose.
        is_float: Whether it computes in floating point.
    """
    told = (
        f"perplexity is {proof.perplexity:.4g} where FP32 has {proof.perplexity_fp32:.4g}, "
        f"{describe_increase(proof.increase)}"
    )
    if proof.max_increase is not None and proof.increase.value > proof.max_increase:
        return LossError(
            f"{name}: {told}, and --max-perplexity-increase allows {proof.max_increase * 100:g} %",
            proof,
            LimitNotMetError.exit_code,
            hint="allow more, give more text to calibrate and tune on, or ship a target of more bits",
        )
    fault = None if proof.decoding is None else find_fault(proof.decoding, is_float=is_float)
    if fault is not None:
        return LossError(
            f"{name} does not write as it reads: {fault}",
            proof,
            BuildFailedError.exit_code,
            hint="ship another target; and report it: perplexity does not show such a fault",
        )
    bound = FLOAT_BROKEN if is_float else BROKEN
    if proof.increase.least > bound:
        return LossError(
            f"{name} does not follow FP32: {told}",
            proof,
            BuildFailedError.exit_code,
            hint="ship a target of more bits; --max-perplexity-increase lets recipes that can repair themselves do so",
        )
    # Text that judges may lack the words that an artifact has lost, or be likelier for logits that are all larger.
    most = FLOAT_BROKEN_NATS if is_float else BROKEN_NATS
    if proof.divergence.least > most:
        return LossError(
            f"{name} does not follow FP32: its next tokens are {proof.divergence.value:.2g} nats from FP32's, and "
            f"{most:g} are usual at most; {told}",
            proof,
            BuildFailedError.exit_code,
            hint="ship a target of more bits",
        )
    return None
