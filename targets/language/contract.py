"""The contract of a target that generates text: what a backend's author writes, and what the tool hands to it.

The model is the portable graph that `exporters/language` writes, with a cache of keys and values as inputs and outputs.
A target turns it into an artifact (`build`) and loads that as a `Generator` (`load`). Texts, tokenizing, greedy
decoding, timing and judging are the harness's: a generator takes tokens and returns logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language import LanguageModel
from modelwright.core.records.machine import Machine
from modelwright.targets.options import RunOption, RunSettings, TargetOption
from modelwright.targets.readiness import Readiness, check_packages

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Language = Literal["python", "cpp"]
"""Of the programs that targets write."""


@dataclass(frozen=True, kw_only=True)
class LanguageTargetRecord:
    """The facts about a target that the rest of the tool needs; none of them is spelled out anywhere else.

    Attributes:
        name: `runtime-precision`, as typed on the command line.
        runtime: `ort`, `openvino`, `torch`: targets of one runtime are compared with each other.
        precision: Of the weights: `fp32`, `bf16`, `int8-weights`, `int4-weights`, `int8-dynamic`.
        title: For people: `OpenVINO BF16`.
        is_float: Whether the precision is a float one.
        needs_calibration: Whether building needs tokens to calibrate on.
        uses_tokens: Whether its recipe reads calibration or tuning tokens at all; then other tokens mean a new build.
        uses_limit: Whether its recipe depends on what perplexity may grow by; then another limit means a new build.
        uses_source: Whether it runs the transformers folder itself, not the exported model.
        weight_copies: Of the model in FP32, that building, or loading what was built, holds in memory at most; measured
            with SmolLM2-135M, beside some 200 MB, and rounded up.
        build_packages: Import name -> pip requirement of what building needs.
        run_packages: Import name -> pip requirement of what running needs.
        build_extra: The extra of this project that brings the build packages.
        run_extra: The extra that brings the run packages.
        recipe_version: Raised when the recipe changes, so that cached artifacts are built again.
        options: What the user may choose at build time.
        settings: What the user may choose when it is run.
    """

    name: str
    runtime: str
    precision: str
    title: str
    is_float: bool
    needs_calibration: bool
    build_packages: Mapping[str, str]
    run_packages: Mapping[str, str]
    build_extra: str
    run_extra: str
    uses_tokens: bool = False
    uses_limit: bool = False
    uses_source: bool = False
    weight_copies: float = 1.0
    recipe_version: int = 1
    options: tuple[TargetOption, ...] = ()
    settings: tuple[RunOption, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LanguageBuildRequest:
    """What a target's `build` gets. It runs in a child process of its own.

    Attributes:
        model: Folder of the exported model: `model.onnx`, its weights, `language.json`, the tokenizer's files. Read
            only.
        record: Of that model.
        source: The transformers folder that it was exported from. Read only.
        directory: An empty staging folder; the runtime's files go here, and nothing else: whoever asks for the build
            adds the tokenizer's files.
        calibration: int64 [rows, length]: tokens to calibrate on; None when there are none.
        tuning: int64 [rows, length]: tokens of other text, disjoint from `calibration` and from what judges the
            artifact, on which a recipe may choose among its candidates. None when there are none.
        scratch: A folder for intermediate files, removed afterwards.
        shared: A folder that all builds of one model see one after the other, for results that several targets need.
        progress: Takes a line about what is going on.
        threads: Of the machine that it is built on, at most.
        options: A value for each of the record's options.
        max_perplexity_increase: What perplexity may grow by against FP32 at most, as a share: 0.05 is 5 %. None where
            the user set no limit.
    """

    model: Path
    record: LanguageModel
    source: Path
    directory: Path
    calibration: Tokens | None
    tuning: Tokens | None
    scratch: Path
    shared: Path
    progress: Callable[[str], None]
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)
    max_perplexity_increase: float | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageBuildResult:
    """What a build made.

    Attributes:
        model_file: The file to load, relative to the staging folder.
        recipe: What was done, in JSON values, for the manifest: methods, types, what has more bits and why.
        requires: What the machine that runs it must have: `packages` (name -> version).
        versions: Package -> version of what made it.
        notes: Sentences for the user: what to know before shipping it.
    """

    model_file: str
    recipe: Mapping[str, Any]
    requires: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as an artifact's files hold it.

    Attributes:
        name: As the runtime has it; that of the source's weight, or one that begins with it.
        size_bytes: In the file.
    """

    name: str
    size_bytes: int


class Generator(ABC):
    """A loaded artifact with a cache of its own. Not thread-safe.

    Rows of a batch may differ in length: shorter ones are padded on the left, and a mask says where.
    """

    @abstractmethod
    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        """Reads prompts into an empty cache; whatever was in it is forgotten.

        Args:
            tokens: int64 [batch, length].
            mask: int64 [batch, length]: 1 for a token, 0 for padding, which stands on the left; None for no padding.

        Returns:
            float32 [batch, vocabulary]: logits for the token after the last one. Valid until the next call.
        """

    @abstractmethod
    def step(self, tokens: Tokens) -> Logits:
        """Reads one more token a row.

        Args:
            tokens: int64 [batch]; as many rows as were prefilled.

        Returns:
            As `prefill`.
        """

    @abstractmethod
    def score(self, tokens: Tokens) -> Logits:
        """Reads texts of equal length and keeps no cache: a `step` needs a `prefill` first.

        Args:
            tokens: int64 [batch, length].

        Returns:
            float32 [batch, length, vocabulary]: logits at every position. Valid until the next call.
        """

    @abstractmethod
    def cache_bytes(self) -> int | None:
        """Returns what the cache takes in memory now; None where the runtime does not tell."""

    def describe_execution(self) -> dict[str, Any]:
        """Returns what really runs, read back from the runtime: threads, precision, operators.

        `{"precision": "int8" | ..., "operators": {type: count}, ...}`. Called after the first inference.
        """
        return {}


class LanguageTarget(ABC):
    """One runtime at one precision. Instances hold no state."""

    record: ClassVar[LanguageTargetRecord]

    def suits(self, machine: Machine) -> bool:  # noqa: ARG002 - for those that depend on it
        """Whether it is worth building for a machine that nobody named a target for; what is installed does not count.

        By default where it has fewer bits than the model: what all are held against is built anyway.
        """
        return not self.record.is_float

    def check_build(self, machine: Machine) -> Readiness:  # noqa: ARG002 - for those that depend on it
        """Says whether this host can build the target for `machine`. Cheap: loads no vendor package."""
        return check_packages(self.record.build_packages, self.record.build_extra)

    def check_run(self, machine: Machine) -> Readiness:
        """Says whether this host, being `machine`, can run the target. Cheap: loads no vendor package."""
        if not machine.is_here:
            return Readiness.no(f"{machine.name} is another machine ({machine.architecture})")
        return check_packages(self.record.run_packages, self.record.run_extra)

    def check_model(self, record: LanguageModel) -> Readiness:  # noqa: ARG002 - for those that take some only
        """Says whether the target can take a model, before anything is built."""
        return Readiness.yes()

    @abstractmethod
    def list_stored(self, directory: Path, model_file: str) -> Iterable[StoredTensor]:
        """Yields all tensors of an artifact's files, scales and zero points among them, without reading their values.

        Raises:
            BadInputError: The files are damaged.
        """

    def write_snippet(
        self,
        language: Language,  # noqa: ARG002
        model_file: str,  # noqa: ARG002
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,  # noqa: ARG002
        settings: RunSettings,  # noqa: ARG002
    ) -> str | None:
        """Returns a program that generates text by the vendor's own API, run in the artifact's folder.

        In Python it takes a prompt as its argument and reads the artifact's tokenizer; in C++, which has no reader of
        it, it takes and prints the numbers of tokens. None where there is no such program.
        """
        return None

    @abstractmethod
    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Turns the exported model into the runtime's files in `request.directory`.

        Raises:
            BuildFailedError: The toolchain cannot build this model; names the node or operator and the cure.
            ToolchainMissingError: A package is absent or broken.
        """

    @abstractmethod
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        record: LanguageModel,
        settings: RunSettings,
    ) -> AbstractContextManager[Generator]:
        """Loads an artifact's files and yields a generator; closes it afterwards."""
