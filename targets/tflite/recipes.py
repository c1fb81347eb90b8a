"""The ways to quantize that the TFLite targets try: which operators, and how. Data that both Pythons read.

How much of a graph to quantize differs from model to model. Convolutional networks are fastest when everything is
8 bit; in transformers the elementwise operators around softmax and layer normalization lose accuracy and gain no time,
their matrix products gain all of it. So each precision has a few candidates, and the samples decide; of those that do
as well, `order` takes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_MATRIX = ("FULLY_CONNECTED", "CONV_2D", "CONV_2D_TRANSPOSE")
_WEIGHTED = (*_MATRIX, "DEPTHWISE_CONV_2D")
BETWEEN = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "HARD_SWISH", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL",
    "PAD", "RELU", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPLIT", "STRIDED_SLICE",
    "TRANSPOSE",
)  # fmt: skip
"""What stands between the operators with weights of a convolutional network, and has 8-bit kernels."""
_CONVOLUTIONAL = (*_WEIGHTED, *BETWEEN)


ROUNDED = ", rounded"
"""At the end of a candidate's name."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How some operators are quantized.

    Attributes:
        mode: `static` (weights and activations, calibrated), `dynamic` (weights; activations while running),
            `weights` (8 bits in the file, float arithmetic) or `half` (the same with 16-bit floats).
        operators: AEQ operator names; `*` is everything that AEQ can quantize.
        tensorwise: Whether the weights of one operator share a scale.
        bits: Of the weights.
        block: Weights of a channel that share a scale, as AEQ has them: 32, 64, 128 or 256; None for all of them.
        scope: Pattern of the names that it is for.
    """

    mode: str
    operators: tuple[str, ...]
    tensorwise: bool = False
    bits: int = 8
    block: int | None = None
    scope: str = ".*"


@dataclass(frozen=True, kw_only=True)
class TfliteCandidate:
    """One way to reach a precision; a later rule overrides an earlier one.

    Attributes:
        name: For the manifest.
        rules: For all operators of a kind.
        spares_ends: Whether the operators that make the outputs get no fixed scales: matrix products take theirs while
            running, the others stay in float.
        rounded: Whether the weights are rounded for what they make of the calibration samples, see
            `quantization.rounding`, and not each to the nearest.
    """

    name: str
    rules: tuple[Rule, ...]
    spares_ends: bool = False
    rounded: bool = False

    def find_rule(self, operator: str) -> Rule | None:
        """Returns how it quantizes operators of a kind, by AEQ's name; None where it leaves them in float."""
        rules = [rule for rule in self.rules if operator in rule.operators or "*" in rule.operators]
        return rules[-1] if rules else None

    @property
    def needs_tables(self) -> bool:
        """Whether it quantizes lookup tables in particular."""
        return any(rule.mode == "static" and rule.operators == ("GATHER",) for rule in self.rules)


def _static(name: str, *operators: str) -> TfliteCandidate:
    return TfliteCandidate(name=name, rules=(Rule(mode="static", operators=operators),))


def _spare_ends(candidate: TfliteCandidate) -> TfliteCandidate:
    return replace(candidate, name=f"{candidate.name}-but-the-ends", spares_ends=True)


def _round(candidate: TfliteCandidate) -> TfliteCandidate:
    return replace(candidate, name=f"{candidate.name}{ROUNDED}", rounded=True)


_EVERYTHING = TfliteCandidate(
    name="everything",
    rules=(
        Rule(mode="static", operators=("*",)),
        # Per-channel scales of BATCH_MATMUL gave a cosine of -0.77.
        Rule(mode="static", operators=("BATCH_MATMUL",), tensorwise=True),
    ),
)
"""What AEQ's documentation calls full integer quantization."""
_ALL_CONVOLUTIONAL = _static("convolutional", *_CONVOLUTIONAL)
WEIGHTED_AND_TABLES = _static("weighted-and-tables", *_WEIGHTED, "GATHER")
"""Only what has weights: the one to begin with where single layers have to be spared."""
_DYNAMIC_PRODUCTS = TfliteCandidate(
    name="weighted-and-tables, products dynamic",
    rules=(*WEIGHTED_AND_TABLES.rules, Rule(mode="dynamic", operators=("FULLY_CONNECTED",))),
)
"""For transformers, whose matrix products no fixed scale suits: as fast with scales that they take while running."""
_PRODUCTS_AND_TABLES = TfliteCandidate(
    name="matrix-products-and-tables",
    rules=(
        Rule(mode="dynamic", operators=_MATRIX),
        Rule(mode="weights", operators=("DEPTHWISE_CONV_2D",)),
        Rule(mode="static", operators=("GATHER",)),
    ),
)
# The dynamic kernels of depthwise convolutions ran at a quarter of FP32's speed, and those of small convolutions may be
# slower than float too: their weights are stored in 8 bits and widened once, at loading.
_PRODUCTS = TfliteCandidate(
    name="matrix-products",
    rules=(Rule(mode="dynamic", operators=_MATRIX), Rule(mode="weights", operators=("DEPTHWISE_CONV_2D",))),
)
"""What AEQ's documentation calls dynamic range quantization, but for depthwise convolutions."""
_DENSE = TfliteCandidate(
    name="fully-connected",
    rules=(
        Rule(mode="dynamic", operators=("FULLY_CONNECTED",)),
        Rule(mode="weights", operators=("CONV_2D", "CONV_2D_TRANSPOSE", "DEPTHWISE_CONV_2D")),
    ),
)
_DENSE_AND_TABLES = TfliteCandidate(
    name="fully-connected-and-tables", rules=(*_DENSE.rules, Rule(mode="static", operators=("GATHER",)))
)
_SPARE_CONVOLUTIONS = Rule(mode="weights", operators=("CONV_2D", "CONV_2D_TRANSPOSE", "DEPTHWISE_CONV_2D"))
_TABLES = Rule(mode="static", operators=("GATHER",))


def _four_bits(name: str, block: int | None, *others: Rule) -> TfliteCandidate:
    products = Rule(mode="dynamic", operators=("FULLY_CONNECTED",), bits=4, block=block)
    return TfliteCandidate(name=name, rules=(products, _SPARE_CONVOLUTIONS, *others))


CANDIDATES: dict[str, tuple[TfliteCandidate, ...]] = {
    "int4-weights": (
        _four_bits("blocks of 32, tables", 32, _TABLES),
        _four_bits("blocks of 32", 32),
        _four_bits("channels, tables", None, _TABLES),
        _four_bits("channels", None),
    ),
    "fp16": (TfliteCandidate(name="weights", rules=(Rule(mode="half", operators=_WEIGHTED),)),),
    "int8-dynamic": (
        _round(_PRODUCTS_AND_TABLES),
        _round(_PRODUCTS),
        _PRODUCTS,
        _round(_DENSE_AND_TABLES),
        _round(_DENSE),
        _PRODUCTS_AND_TABLES,
    ),
    "int8": (
        _round(_spare_ends(_EVERYTHING)),
        _EVERYTHING,
        _round(_DYNAMIC_PRODUCTS),
        _round(_spare_ends(_ALL_CONVOLUTIONAL)),
        _round(_spare_ends(WEIGHTED_AND_TABLES)),
        _spare_ends(_EVERYTHING),
        WEIGHTED_AND_TABLES,
        _static("weighted", *_WEIGHTED),
    ),
}
"""Precision -> candidates in the order of trying: of a large model the first four, the vendor's own way among them."""


def list_candidates(precision: str, *, rounds: bool) -> list[TfliteCandidate]:
    """Returns the candidates of a precision; where weights cannot be rounded together, each with single ones."""
    candidates = CANDIDATES[precision]
    return list(candidates if rounds else dict.fromkeys(map(_round_singly, candidates)))


def _round_singly(candidate: TfliteCandidate) -> TfliteCandidate:
    return replace(candidate, name=candidate.name.removesuffix(ROUNDED), rounded=False)
