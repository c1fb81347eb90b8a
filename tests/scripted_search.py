"""A made-up runtime to search on: every layer adds an error of known energy while it is quantized."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import Feeds
from modelwright.targets.quantization.judge import Judge, Outputs
from modelwright.targets.quantization.quantizer import Quantizer
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.search import Found, search

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
)
GOOD, FAIR, POOR = 0.001, 0.05, 0.5
"""Energies of an error (of FP32's 1) that make a candidate good, fair and poor: noise of 0.1 %, 5 % and 50 %."""


@dataclass(frozen=True)
class Way:
    name: str
    error: float = 0.0


@dataclass
class Model:
    """The energy of the error that it answers with, or another fault."""

    error: float
    faults: set[str] = field(default_factory=set)


@dataclass
class FakeQuantizer(Quantizer[Way, Model]):
    """Adds up errors: the candidate's own, and that of each quantized layer.

    Attributes:
        groups: Candidates.
        layers: Layer -> error while it is quantized.
        shares: Layer -> share of the work; equal ones where none are given.
        faults: Candidate or layer -> `build` or `run` (raises there) or `nan`.
        made: What was built: candidate's name, layers in float.
    """

    groups: Sequence[Sequence[Way]]
    layers: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    made: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def candidates(self) -> Sequence[Sequence[Way]]:
        return self.groups

    def build(self, candidate: Way, kept: Collection[str]) -> Model:
        self.made.append((candidate.name, tuple(kept)))
        quantized = [name for name in self.layers if name not in kept]
        faults = {self.faults[name] for name in (candidate.name, *quantized) if name in self.faults}
        if "build" in faults:
            raise BuildFailedError(f"{candidate.name} does not build", hint="another one")
        return Model(max(0.0, candidate.error + sum(self.layers[name] for name in quantized)), faults)

    def run(self, model: Model, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        for inputs in feeds:
            if "run" in model.faults:
                raise BuildFailedError("it does not run", hint="another runtime")
            x = inputs["x"]
            # At right angles to FP32's answer, which is the input: energies then add up and give the cosine.
            answer = x + np.sqrt(model.error) * np.stack([-x[:, 1], x[:, 0]], axis=1)
            yield {"y": answer * np.nan if "nan" in model.faults else answer}

    def works(self, model: Model) -> Mapping[str, LayerWork]:
        shares = self.shares or dict.fromkeys(self.layers, 1 / max(len(self.layers), 1))
        return {name: LayerWork(products=share * 1e9) for name, share in shares.items()}


class BusyClock:
    """Jumps by another time at every look, as on a machine that does something else too."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        self.step_s *= 1.5
        return self.now_s


def run(quantizer: Quantizer[Way, Model], judge: Judge | None, **changes: Any) -> Found[Way, Model]:
    return search(quantizer, judge, lambda line: None, **changes)


def names(found: Found[Way, Model]) -> list[str]:
    return [trial.candidate.name for trial in found.trials]
