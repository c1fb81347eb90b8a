"""One artifact that generates, in child processes of its own, as the parent sees it: a generation is a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.process.child import Child
from modelwright.core.records.codec import Count, Record, Sha256, decode
from modelwright.core.records.language_artifact import LanguageArtifact
from modelwright.harness.kinds import Figure
from modelwright.harness.meters.host_energy import Meter, run_metered
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.runner import ENVIRONMENT, LOAD_TIMEOUT_S
from modelwright.harness.run.told import Executed
from modelwright.targets.options import Value

_WORKER = "modelwright.harness.language.worker"
_TURN_TIMEOUT_S = 1800.0


class Opened(Record):
    """What loading told; see `worker.open_in_child`."""

    seal: Sha256
    import_ms: Figure
    load_ms: Figure
    first_generation_ms: Figure
    runtime_bytes: Count | None


class Finished(Record):
    """Memory and what really ran; see `worker.finish_in_child`."""

    peak_memory_bytes: Count | None
    steady_memory_bytes: Count | None
    cache_bytes: Count | None
    precision_executed: Executed


class Stream(Record):
    """One prompt answered alone; see `worker.run_stream`."""

    prompt_tokens: Count
    first_ns: Count
    step_ns: tuple[Count, ...]
    tokens: tuple[Count, ...]


class Opening(Record):
    """The first token of a prompt of a chosen length."""

    prompt_tokens: Count
    first_ns: Count


class Batch(Record):
    """Several prompts answered at once."""

    total_ns: Count
    tokens: Count


@dataclass(frozen=True, kw_only=True)
class GenerationWindow(Window):
    """A turn: one answer, whose `latencies_ms` are those of its tokens after the first.

    Attributes:
        prompt_tokens: That were read.
        first_ms: Time to the first token.
        tokens: That were written.
        opening: The first token of a prompt of a chosen length; None where there are none.
        batch: Several prompts at once; None where that was not asked for.
    """

    prompt_tokens: int = 0
    first_ms: float = 0.0
    tokens: Sequence[int] = ()
    opening: Opening | None = None
    batch: Batch | None = None

    @property
    def total_ms(self) -> float:
        """From the prompt to the last token."""
        return self.first_ms + sum(self.latencies_ms)


@dataclass(frozen=True, kw_only=True)
class Generating:
    """How to generate.

    Attributes:
        prompts: File with a `PromptSet`.
        threads: Intra-operator threads.
        batch: Prompts at once in the offline part of a turn; 1 for none.
        options: Target -> settings of its runtime.
    """

    prompts: Path
    threads: int
    batch: int
    options: Mapping[str, Mapping[str, Value]]


class GenerationRunner:
    """An artifact loaded in a child process, a new one each time that it is opened; see `interleave.Runner`."""

    def __init__(self, name: str, artifact: LanguageArtifact, how: Generating, *, meter: Meter | None = None) -> None:
        self.name = name
        self._artifact = artifact
        self._how = how
        self._meter = meter
        self._opened: Child | None = None
        self._turn = 0

    def open(self) -> Opened:
        """Loads the artifact in a new process and generates once.

        Raises:
            BadInputError: What was loaded there is not the artifact that was opened here.
        """
        self.close()
        self._opened = Child(
            f"measuring {self.name}",
            crash_error=MeasurementInvalidError,
            environment=ENVIRONMENT,
            threads=self._how.threads,
        )
        params = {
            "directory": str(self._artifact.directory.resolve()),
            "prompts": str(self._how.prompts.resolve()),
            "threads": self._how.threads,
            "batch": self._how.batch,
            "options": dict(self._how.options.get(self._artifact.manifest.target, {})),
        }
        opened = decode(Opened, self._call("open_in_child", params, timeout_s=LOAD_TIMEOUT_S))
        if opened.seal != self._artifact.seal:
            raise BadInputError(
                f"artifact {self._artifact.directory} was replaced by another one while it was measured",
                hint="measure it again when nothing else writes into its folder",
            )
        return opened

    def run_window(self, window_s: float) -> GenerationWindow:
        """Takes a turn, which lasts as long as an answer does; only that is metered."""
        del window_s
        turn, self._turn = {"turn": self._turn}, self._turn + 1
        self._call("warm_up", turn)
        told, metered = run_metered(self._meter, lambda: self._call("run_stream", turn))
        stream = decode(Stream, told)
        opening = self._call("run_opening", turn)
        batch = self._call("run_batch", turn) if self._how.batch > 1 else None
        return GenerationWindow(
            latencies_ms=[nanoseconds / 1e6 for nanoseconds in stream.step_ns],
            inferences=len(stream.tokens),
            elapsed_s=(stream.first_ns + sum(stream.step_ns)) / 1e9,
            energy_j=metered.energy_j,
            power=metered.power,
            prompt_tokens=stream.prompt_tokens,
            first_ms=stream.first_ns / 1e6,
            tokens=stream.tokens,
            opening=None if opening is None else decode(Opening, opening),
            batch=None if batch is None else decode(Batch, batch),
        )

    def finish(self) -> Finished:
        """Returns memory and what really ran."""
        return decode(Finished, self._call("finish_in_child", {}, timeout_s=LOAD_TIMEOUT_S))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _call(self, function: str, params: Mapping[str, Any], *, timeout_s: float = _TURN_TIMEOUT_S) -> Any:
        assert self._opened is not None, "opened before anything is asked of it"
        return self._opened.call(f"{_WORKER}:{function}", params, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.__exit__(kind, error, trace)
