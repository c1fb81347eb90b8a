"""What a runtime gives to the search: its candidates, how one is built and run, what layers in float cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from modelwright.targets.contract import Feeds
from modelwright.targets.quantization.goal import Figures
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.savings import STARTING, LayerWork


class Candidate(Protocol):
    """One way to quantize: a frozen dataclass of settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """For people, and unique among a runtime's candidates."""


CandidateT = TypeVar("CandidateT", bound=Candidate)
ModelT = TypeVar("ModelT")


@dataclass(frozen=True, kw_only=True)
class Trial(Generic[CandidateT]):
    """A candidate that was tried, and how it did.

    Attributes:
        candidate: The way to quantize.
        kept: Layers that were left in float.
        figures: On the samples that judge.
        seconds: What building and judging took.
        way: Place of the way to run it among the runtime's other ones; None for as it was built.
        same_as: Name of an earlier trial that made the same model, whose figures these are; None for one of its own.
    """

    candidate: CandidateT
    kept: tuple[str, ...]
    figures: Figures
    seconds: float
    way: int | None = None
    same_as: str | None = None

    @property
    def name(self) -> str:
        return name_trial(self.candidate, self.kept)

    def to_dict(self) -> dict[str, Any]:
        return {
            **describe_candidate(self.candidate),
            "float_layers": len(self.kept),
            **self.figures.to_dict(),
            "seconds": round(self.seconds, 2),
            "same_as": self.same_as,
        }


def name_trial(candidate: Candidate, kept: Collection[str]) -> str:
    """Returns the candidate's name, with how many layers are in float."""
    return candidate.name + (f", {len(kept)} layers in float" if kept else "")


def describe_candidate(candidate: Candidate) -> dict[str, Any]:
    """Returns name and settings, in JSON values."""
    return {"name": candidate.name, **asdict(candidate)}


class Quantizer(ABC, Generic[CandidateT, ModelT]):
    """A runtime's side of the search.

    Four operations; the others have an answer that suits most runtimes. Whatever cannot be done with one candidate is
    a `BuildFailedError`, and the search goes on with the next.
    """

    equally_fast: ClassVar[bool] = True
    """Whether the candidates of a group run at one speed: then the closest to FP32 counts. Else every good one may be
    taken, as nobody would notice what it loses, and many would notice a slower one."""

    starting: ClassVar[float] = STARTING
    """What an operator takes beside its work (`savings.py`): a layer that saves less is put back for nothing."""

    @abstractmethod
    def candidates(self) -> Sequence[Sequence[CandidateT]]:
        """Returns groups of candidates, the fastest first: the next is tried where none of a group was good."""

    @abstractmethod
    def build(self, candidate: CandidateT, kept: Collection[str]) -> ModelT:
        """Builds a candidate with the named layers left in float."""

    @abstractmethod
    def run(self, model: ModelT, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        """Runs one sample after the other."""

    @abstractmethod
    def works(self, model: ModelT) -> Mapping[str, LayerWork]:
        """Returns the layers of a candidate that can go back to float -> what each does that goes back with it.

        In the order of the graph; empty where none can.
        """

    def costs(self, model: ModelT) -> Mapping[str, float]:
        """Returns the same layers -> the share of their work that moves with each."""
        return share_work({name: work.total for name, work in self.works(model).items()})

    def identify(self, model: ModelT) -> str | None:  # noqa: ARG002 - for those whose models can be told apart
        """Returns what models have in common that compute the same: they are judged once. None where it cannot tell."""
        return None

    def repeats(self, candidate: CandidateT) -> bool:  # noqa: ARG002 - for those that can say so before building it
        """Whether a candidate quantizes what one that was built before does, in the same way."""
        return False

    def unchecked(self) -> CandidateT:
        """Returns what to take where no samples can judge."""
        return self.candidates()[0][0]

    def effort(self, candidate: CandidateT) -> float:  # noqa: ARG002 - for those that differ
        """Returns what building a candidate and judging it costs, in evaluations of the samples that judge."""
        return 1.0

    def choose(self, usable: Sequence[Trial[CandidateT]]) -> Trial[CandidateT]:
        """Returns which of a group's candidates that are as good as its best to take: the one closest to FP32."""
        measured = [(trial.figures.distance, trial) for trial in usable if trial.figures.distance is not None]
        if len(measured) < len(usable):
            return max(usable, key=lambda trial: trial.figures.rank)
        return min(measured, key=lambda pair: pair[0])[1]

    def other_ways(self, model: ModelT) -> Iterable[ModelT]:  # noqa: ARG002 - for those that have one
        """Returns other ways to run a model that does less than well: the runtime itself may be at fault."""
        return ()

    def base(self, best: CandidateT, *, as_fast: bool) -> CandidateT:  # noqa: ARG002 - for those that differ
        """Returns the candidate whose layers go back to float where `best` does not do.

        Args:
            best: The way to quantize.
            as_fast: Whether it may be no slower, as `best` is usable as it is.
        """
        return best

    def estimate_noise(self, candidate: CandidateT, model: ModelT) -> Mapping[str, float]:  # noqa: ARG002
        """Returns layer -> noise to signal that its own quantization makes at it, while all else computes in float.

        From one pass over a few samples, without building anything; empty where a runtime cannot tell.

        Args:
            candidate: The way to quantize.
            model: The same candidate with all layers quantized.
        """
        return {}

    def build_for_ranking(self, candidate: CandidateT, model: ModelT, quantized: Collection[str]) -> ModelT:
        """Returns a candidate in which only some layers are quantized, as exactly as ranking layers needs.

        Args:
            candidate: The way to quantize.
            model: The same candidate with all layers quantized. Not to be changed.
            quantized: Those that are; none for what the others are compared with.
        """
        return self.build(candidate, spare_others(self.costs(model), quantized))

    def time_layers(self, model: ModelT) -> LayerTimes | None:  # noqa: ARG002 - for those that have a profiler
        """Returns what each layer of a model takes here, for the record; None where no profiler tells."""
        return None

    def foresee(self, candidate: CandidateT, choices: Iterable[tuple[str, ...]]) -> None:
        """Is told which layers in float will be asked for next: there are toolchains that make many at once faster."""


def spare_others(layers: Iterable[str], quantized: Collection[str]) -> tuple[str, ...]:
    """Returns the layers that are in float where only some are quantized."""
    return tuple(name for name in layers if name not in quantized)


def share_work(work: Mapping[str, float]) -> dict[str, float]:
    """Returns layer -> its share of the work of all of them."""
    total = sum(work.values()) or 1.0
    return {name: value / total for name, value in work.items()}
