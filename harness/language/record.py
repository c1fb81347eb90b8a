"""The typed result of comparing language artifacts: what its `results.json` holds, from measuring to reporting.

The fields are the keys of the file, and the docstrings what the JSON Schema says of them (`modelwright schema
language`). Null is what was not measured or does not apply; a row's `unavailable` says why.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelwright.core.records.codec import Count, Record
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import LanguageProof, Texts
from modelwright.harness.kinds import Figure
from modelwright.harness.meters.energy import Carbon, Energy
from modelwright.harness.results.record import Environment, Executed, Memory
from modelwright.harness.results.statistics import Latency, SpeedRatio

SCHEMA = 1


class LanguageSettings(Record):
    """How it was measured.

    Attributes:
        threads: Intra-operator threads of every runtime.
        new_tokens: Generated of each prompt, whatever the model thinks of its end: the same work for all.
        prompts: Different prompts, answered in turns.
        batch: Prompts at once in the offline part; 1 for none.
        seed: Of the order of turns.
        effort: `quick`, `standard` or `strict`.
        launches: How often every artifact was loaded.
        rounds: Turns of every artifact, over all launches.
        options: Target -> settings of its runtime that were not at their defaults.
    """

    threads: Count
    new_tokens: Count
    prompts: Count
    batch: Count
    seed: Count
    effort: str
    launches: Count
    rounds: Count
    options: dict[str, dict[str, bool | int | str]] = msgspec.field(default_factory=dict)


class FirstToken(Record):
    """The time to the first token of prompts of one length.

    Attributes:
        prompt_tokens: Of each prompt.
        count: How often it was timed.
        latency_ms: From handing over the prompt until its first token is known.
    """

    prompt_tokens: Count
    count: Count
    latency_ms: Latency


class Offline(Record):
    """Several prompts answered at once, as where nobody waits for one.

    Attributes:
        batch: Prompts at once.
        prompts_per_s: Answered.
        tokens_per_s: Generated, over all prompts.
        speedup: Over the baseline's, of whole batches.
    """

    batch: Count
    prompts_per_s: Figure
    tokens_per_s: Figure
    speedup: SpeedRatio | None = None


class Turn(Record):
    """One turn's raw times.

    Attributes:
        round: Its number, over all launches.
        launch: Which process of the artifact it was, counted from 0.
        prompt_tokens: That were read.
        first_ms: Time to the first token.
        token_ms: Of each further token.
        opening_tokens: Length of the prompt whose first token alone was timed; null where there was none.
        opening_ms: That time.
        batch_ms: Of a whole batch; null where there was none.
    """

    round: Count
    launch: Count
    prompt_tokens: Count
    first_ms: Figure
    token_ms: tuple[Figure, ...]
    opening_tokens: Count | None = None
    opening_ms: Figure | None = None
    batch_ms: Figure | None = None


class LanguageRow(Record):
    """One target of a comparison.

    Attributes:
        target: Its name, unique here: `ort-int8-weights`.
        title: For people.
        runtime: Such as `ort`.
        precision: As declared, such as `int8-weights`.
        is_float: Whether it computes in floating point.
        status: `skipped` when it cannot be built here, `failed` when it should have been, or loses more than it may; of
            these, most is null.
        reason: Why it was skipped or failed.
        hint: What to do about it.
        detail: What the vendor said.
        exit_code: That the reason stands for.
        size_bytes: Of its files, the tokenizer's among them.
        build_s: Seconds that building took.
        reused: Whether it was there from an earlier run.
        import_ms: Time to import the runtime, in the first launch as all that is told of loading and memory.
        load_ms: Time to load it.
        first_generation_ms: The first answer after loading.
        token_ms: Time of an output token after the first, one prompt at a time.
        num_tokens: That these are of.
        effective_tokens: What they are worth, as successive times are correlated.
        tokens_per_s: Output tokens a second of whole answers, the first token's wait included.
        first_token_ms: From handing over a prompt until its first token is known.
        openings: Likewise, of prompts of chosen lengths.
        answer_ms: From handing over a prompt until the last token of its answer.
        prompts_per_s: Answered one after the other.
        offline: Several prompts at once; null where that was not asked for.
        peak_memory_bytes: Largest resident set of its process, the runtime's and Python's share included.
        memory: What only its process needs.
        cache_bytes: What keys and values take at the end of an answer, among that memory.
        energy: Of a generated token; where figures speak of an inference, it is a token.
        carbon: That the energy stands for.
        speedup: Times as fast as the baseline per output token, the first excepted.
        answer_speedup: Times as fast as the baseline for whole answers.
        first_speedup: Times as fast as the baseline to the first token.
        turns: Raw times.
        quality: How its text follows FP32's; of a target that loses too much, too.
        precision_executed: What it executed in, as its runtime tells.
        recipe: How it was made, in the target's own words.
        notes: What the target says of it.
        unavailable: Key of this row -> why it is null.
    """

    target: str
    title: str
    runtime: str
    precision: str
    is_float: bool
    status: Literal["measured", "skipped", "failed"]
    reason: str | None = None
    hint: str | None = None
    detail: str | None = None
    exit_code: Count | None = None
    size_bytes: Count | None = None
    build_s: Figure | None = None
    reused: bool = False
    import_ms: Figure | None = None
    load_ms: Figure | None = None
    first_generation_ms: Figure | None = None
    token_ms: Latency | None = None
    num_tokens: Count | None = None
    effective_tokens: Figure | None = None
    tokens_per_s: Figure | None = None
    first_token_ms: Latency | None = None
    openings: tuple[FirstToken, ...] = ()
    answer_ms: Latency | None = None
    prompts_per_s: Figure | None = None
    offline: Offline | None = None
    peak_memory_bytes: Count | None = None
    memory: Memory | None = None
    cache_bytes: Count | None = None
    energy: Energy | None = None
    carbon: Carbon | None = None
    speedup: SpeedRatio | None = None
    answer_speedup: SpeedRatio | None = None
    first_speedup: SpeedRatio | None = None
    turns: tuple[Turn, ...] = ()
    quality: LanguageProof | None = None
    precision_executed: Executed = msgspec.field(default_factory=Executed)
    recipe: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def measured(self) -> bool:
        return self.status == "measured"


class LanguageVerdict(Record):
    """Which target to ship, and why.

    Attributes:
        ship: The target; null when nothing can be recommended.
        sentence: For people.
        warnings: What to know before believing it.
        order: All targets: measured, fastest per token first, then the others.
    """

    ship: str | None
    sentence: str
    warnings: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


class LanguageComparison(Record):
    """Artifacts of one language model side by side.

    Attributes:
        kind: Tells it from the results of other models.
        schema: Version of this format.
        run_id: Of this run.
        timestamp: ISO 8601, UTC.
        model: The FP32 model.
        texts: That calibrated, tuned and judged.
        environment: The machine that was measured on.
        profile: Name of the profile that the numbers are for.
        baseline: Target that ratios are over, and whose text is FP32's.
        settings: How it was measured.
        max_perplexity_increase: What the user allows, as a share; null for no limit.
        warnings: What was noticed on the way.
        rows: One a target.
        verdict: Which target to ship.
    """

    kind: Literal["language"] = "language"
    schema: Literal[1] = 1
    run_id: str
    timestamp: str
    model: LanguageModel
    texts: Texts
    environment: Environment
    profile: str
    baseline: str
    settings: LanguageSettings
    max_perplexity_increase: Figure | None = None
    warnings: tuple[str, ...] = ()
    rows: tuple[LanguageRow, ...]
    verdict: LanguageVerdict | None = None

    @property
    def measured(self) -> tuple[LanguageRow, ...]:
        return tuple(row for row in self.rows if row.measured)

    def find(self, target: str | None) -> LanguageRow | None:
        return next((row for row in self.rows if row.target == target), None)
