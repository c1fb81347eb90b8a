"""Which of several good files to take: the first in a documented order, unless another is faster beyond doubt.

What is timed depends on the machine and on what else runs on it; what is built must not. So times decide only where
this host is such a machine as the file is for, and only what they tell apart with certainty: files take turns, each
round gives a ratio of the CPU time that they took, and the interval of the ratios' median has to lie beyond a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from modelwright.core.records.machine import Machine
from modelwright.targets.tflite.recipes import ROUNDED, TfliteCandidate

WORTH = 1.1
"""How many times as fast a file has to be for certain, to be taken before one that comes first in the order."""
_DOUBT = 0.05
"""Probability that the interval of a median misses it."""
ROUNDS, MOST_ROUNDS = 15, 120
"""Rounds timed at a time, and in all, as long as some ratio is undecided."""

_BLOG = "blog.tensorflow.org"
_STATIC = (
    f"{_BLOG}/2021/09/faster-quantized-inference-with-xnnpack.html: quantized operators in a chain stay in 8 bits; one "
    "left in float between them brings a conversion on either side"
)
_DYNAMIC = (
    f"{_BLOG}/2024/04/faster-dynamically-quantized-inference-with-xnnpack.html: FULLY_CONNECTED and CONV_2D that round "
    "their activations as they come are several times as fast as float ones; tables in 8 bits cost nothing"
)
_WITHOUT_DOT = (
    "expected, not measured: without 8-bit dot products kernels multiply in 16 bits, so that a convolution gains less "
    "over float than rounding its input anew costs (onnxruntime pull request 9772 found only deep ones to gain on such "
    "Arm CPUs); a matrix product reads a quarter of the weights"
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Names of candidates, the one expected to be fastest first, and what that expectation rests on.

    How weights are rounded changes no speed: the names are those without it.
    """

    names: tuple[str, ...]
    source: str


_ANY = "any CPU"
_DOT, _NO_DOT = "with 8-bit dot products", "without 8-bit dot products"
ORDERS: Mapping[str, Mapping[str, Order]] = {
    "fp16": {_ANY: Order(names=("weights",), source="there is one way")},
    "int4-weights": {
        _ANY: Order(
            names=("blocks of 32, tables", "blocks of 32", "channels, tables", "channels"),
            source="blocks lose less than whole channels and are as small but for their scales",
        )
    },
    "int8": {
        _ANY: Order(
            names=(
                "everything-but-the-ends", "everything", "convolutional-but-the-ends",
                "weighted-and-tables, products dynamic", "weighted-and-tables-but-the-ends", "weighted-and-tables",
                "weighted",
            ),
            source=_STATIC,
        )
    },
    "int8-dynamic": {
        _DOT: Order(
            names=(
                "matrix-products-and-tables", "matrix-products", "fully-connected-and-tables", "fully-connected"
            ),
            source=_DYNAMIC,
        ),
        _NO_DOT: Order(
            names=(
                "fully-connected-and-tables", "fully-connected", "matrix-products-and-tables", "matrix-products"
            ),
            source=_WITHOUT_DOT,
        ),
    },
}  # fmt: skip
"""Precision -> CPUs -> order of its candidates (`recipes.CANDIDATES`)."""


def find_order(precision: str, machine: Machine) -> tuple[Order, str]:
    """Returns a machine's order of a precision's candidates, and what CPUs it is for."""
    orders = ORDERS[precision]
    if _ANY in orders:
        return orders[_ANY], machine.architecture
    kind = _DOT if machine.has_int8_dot_product else _NO_DOT
    return orders[kind], f"{machine.architecture} {kind}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    Attributes:
        position: Of the chosen file.
        rounds: Times in ms, one row a round, one column a file; none where nothing was timed.
    """

    position: int
    rounds: Sequence[Sequence[float]] = ()

    def speed_ratios(self) -> list[float]:
        """Returns how many times as fast as the first each file was: the median over the rounds."""
        return [median(row[0] / row[file] for row in self.rounds) for file in range(len(self.rounds[0]))]


def find_place(order: Order, candidate: TfliteCandidate) -> tuple[int, bool]:
    """Returns a candidate's place in an order; of two with one place, the one with rounded weights is first."""
    return order.names.index(candidate.name.removesuffix(ROUNDED)), not candidate.rounded


def choose_by_speed(count: int, take_rounds: Callable[[int], Sequence[Sequence[float]]]) -> Choice:
    """Returns the file that is faster beyond doubt than those before it; the first one where none is.

    Args:
        count: Files, in the documented order.
        take_rounds: Times that many rounds: rows of each file's time.
    """
    rounds: list[Sequence[float]] = []
    while True:
        rounds += take_rounds(ROUNDS)
        position, is_certain = _find_fastest(rounds, count)
        if is_certain or len(rounds) >= MOST_ROUNDS:
            return Choice(position=position, rounds=rounds)


def _find_fastest(rounds: Sequence[Sequence[float]], count: int) -> tuple[int, bool]:
    """Returns the file to take, and whether more rounds could not make it another one."""
    best, is_certain = 0, True
    for file in range(1, count):
        low, high = bound_median([row[best] / row[file] for row in rounds])
        if low > WORTH:
            best = file
        elif high > WORTH:
            is_certain = False
    return best, is_certain


def bound_median(values: Sequence[float]) -> tuple[float, float]:
    """Returns the interval of a median by the sign test, at 95 % or more: two of the sorted values.

    Nothing is assumed of how they scatter: on a busy machine they do so by far more than a normal distribution.
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < count // 2 and (outside := outside + math.comb(count, rank) / 2**count) <= _DOUBT / 2:
        rank += 1
    if rank == 0:
        return -math.inf, math.inf
    return ordered[rank - 1], ordered[count - rank]
