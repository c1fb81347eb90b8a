"""An artifact that generates text: a folder with the runtime's files, the tokenizer's, and `artifact.json`.

As for every artifact the manifest is written last and read first, one hash covers it (`seal.py`), and files whose hash
is not the manifest's are never loaded. What it is proved by is what it writes, not how close its numbers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.core.records.artifact import BuildHost, Requires
from modelwright.core.records.artifact_files import MANIFEST, find_changes
from modelwright.core.records.codec import Amount, Count, FileName, Line, Number, Record, Sha256, Share
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.seal import read_sealed, write_sealed

KIND = "language"
PROMPTS = "prompts.json"
"""File of an artifact with the `PromptSet` that is generated from unless another one is given."""
_HINT = "build the artifact again, or copy it again from where it was built"


class PromptSet(Record):
    """What is generated from, as tokens: artifacts carry some, so that they are measured without any text.

    Attributes:
        prompts: That are answered.
        openings: Prompts of chosen lengths, for the time to the first token.
        new_tokens: Of each answer.
    """

    prompts: tuple[tuple[Count, ...], ...]
    openings: tuple[tuple[Count, ...], ...]
    new_tokens: Count


class Estimate(Record):
    """A figure with both ends of its 95 % interval; null where too little text carries one."""

    value: Number
    ci95: tuple[Number, Number] | None = None

    @property
    def least(self) -> float:
        """The lower end of the interval: too little text must not make a good artifact look broken."""
        return self.value if self.ci95 is None else self.ci95[0]


class TextPart(Record):
    """Texts that an artifact was calibrated, tuned or judged on.

    Attributes:
        path: The file, without its folder.
        texts: How many.
        tokens: Of all of them.
        sha256: Of the tokens.
    """

    path: Line
    texts: Count
    tokens: Count
    sha256: Sha256


class Texts(Record):
    """Which texts made and judged an artifact; null where there were none of a part.

    Attributes:
        calibration: What recipes calibrate on.
        tuning: What they choose by.
        evaluation: What judges.
        repeated: Share of the tokens that judge which stand in calibration or tuning as well, in runs.
    """

    calibration: TextPart | None = None
    tuning: TextPart | None = None
    evaluation: TextPart | None = None
    repeated: Share | None = None


class Answers(Record):
    """How answers to prompts that end in the same number of tokens, always the likeliest one, stand to FP32's.

    Attributes:
        count: Prompts.
        new_tokens: Tokens of each answer.
        exact: Answers that are FP32's, token by token.
        exact_ci95: Both ends of the interval of that share (Wilson).
        similarity: 1 less the edits between the two as a share of their length, in the mean.
    """

    count: Count
    new_tokens: Count
    exact: Count
    exact_ci95: tuple[Amount, Amount] | None = None
    similarity: Estimate


class RightAnswers(Record):
    """How many questions are answered rightly when choices are compared in one way.

    Attributes:
        correct: By the artifact.
        correct_fp32: By FP32.
        kept: Of those that FP32 answers rightly, by the artifact too: as a share of these, what users call retention.
        ci95: Both ends of the interval of the artifact's share of all questions (Wilson).
        kept_ci95: Of the share that is kept; null where FP32 answers none rightly.
    """

    correct: Count
    correct_fp32: Count
    kept: Count
    ci95: tuple[Amount, Amount] | None = None
    kept_ci95: tuple[Amount, Amount] | None = None


class TaskScores(Record):
    """Questions with one right choice, answered by how likely each choice is after its question.

    Scored as lm-evaluation-harness scores `output_type: multiple_choice`; in brackets its name of each way.

    Attributes:
        name: Of the task.
        count: Questions that were asked.
        total: That its file holds.
        whole: The likeliest choice is taken (`acc`).
        by_character: The likeliest one for its length in characters (`acc_norm`).
        by_byte: For its length in bytes of UTF-8 (`acc_bytes`).
        by_token: For its number of tokens.
    """

    name: Line
    count: Count
    total: Count
    whole: RightAnswers
    by_character: RightAnswers
    by_byte: RightAnswers
    by_token: RightAnswers


class LongDecoding(Record):
    """How an artifact goes on after a text that is longer than what is read at once elsewhere.

    Attributes:
        head: Tokens of the text.
        tokens: Whose next token was predicted, one by one.
        divergence: Of what it wrote from what FP32 wrote, in nats a token; of FP32 itself, of the last token from what
            it says where it reads all at once.
    """

    head: Count
    tokens: Count
    divergence: Estimate


class Decoding(Record):
    """What writing with the cache costs beyond reading the same text at once, in nats a token of divergence from FP32.

    Attributes:
        rows: Pieces of text.
        tokens: Whose next token was predicted.
        divergence_read: Of the artifact from FP32 where both read at once.
        alone: What it is more where the artifact reads token by token, one piece after the other.
        together: What it is more where it does so with all pieces at once, the shorter ones padded.
        changed_alone: Divergence of what it then writes from what the artifact itself said where it read at once. None
            in manifests of earlier versions, as all below.
        changed_together: The same of all pieces at once.
        long: What comes after a long text; None where there is too little text, too.
    """

    rows: Count
    tokens: Count
    divergence_read: Amount
    alone: Estimate
    together: Estimate
    changed_alone: Estimate | None = None
    changed_together: Estimate | None = None
    long: LongDecoding | None = None


class LanguageProof(Record):
    """The comparison with FP32 on text that neither calibrated nor tuned.

    Attributes:
        tokens: That were predicted.
        text_bytes: Of those in UTF-8.
        window: Tokens read at once at most; windows slide by half of it.
        perplexity: e to the mean cost of a token in nats.
        perplexity_fp32: Of FP32 on the same tokens.
        increase: Of perplexity over FP32's, as a share: 0.05 is 5 % more.
        bits_per_byte: What a byte of the text costs.
        bits_per_byte_fp32: FP32's.
        divergence: Of the distributions of the next token from FP32's (Kullback-Leibler), in nats a token.
        divergence_positions: Tokens that it was taken at, evenly spread.
        agreement: Share of the tokens whose likeliest next one is FP32's.
        decoding: How it writes with its cache; null in manifests of before that was looked at.
        answers: To prompts; null without prompts.
        tasks: Questions with choices, by task.
        max_increase: What `increase` may be at most, as the user said; null where they set no limit.
        reference: Target of the FP32 artifact that it was held against.
        evaluation_sha256: Of all that it was judged on: texts, prompts, questions.
        host: That it ran on.
        threads: That it ran with.
    """

    tokens: Count
    text_bytes: Count
    window: Count
    perplexity: Amount
    perplexity_fp32: Amount
    increase: Estimate
    bits_per_byte: Amount
    bits_per_byte_fp32: Amount
    divergence: Estimate
    divergence_positions: Count
    agreement: Estimate
    decoding: Decoding | None = None
    answers: Answers | None = None
    tasks: tuple[TaskScores, ...] = ()
    max_increase: Amount | None = None
    reference: Line
    evaluation_sha256: Sha256
    host: Machine
    threads: Count


class LanguageManifest(Record):
    """What `artifact.json` of an artifact that generates text holds.

    Attributes:
        kind: Tells it from the manifests of other artifacts.
        target: `ort-int8-weights`, ...
        model_file: The file that the runtime loads, relative to the folder.
        files: Path relative to the folder -> SHA-256, of every file but the manifest.
        size_bytes: Of all files that a device needs.
        model: The FP32 model, and what it was exported from.
        texts: That it was made with and judged on.
        machine: The machine it was built for.
        requires: What the machine that runs it must have.
        recipe: What was done, in the target's own words.
        versions: Package -> version of what made it.
        build_host: Architecture, operating system and Python of the machine it was built on.
        build_s: Seconds the build took, proof not included.
        proof: The comparison with FP32, or null with `proof_reason`.
        proof_reason: Why there is no proof.
        notes: Sentences for the user.
        key: Hash of all that decides the files; an artifact with the same key need not be built again.
        created: ISO 8601, UTC.
    """

    kind: Literal["language"] = "language"
    schema: Annotated[
        Literal[1], Meta(extra={"hint": "it was made by another version of modelwright: build it again"})
    ] = 1
    target: Line
    model_file: FileName
    files: Mapping[FileName, Sha256]
    size_bytes: Count
    model: LanguageModel
    texts: Texts
    machine: Machine
    requires: Requires
    recipe: Mapping[str, Any]
    versions: Mapping[Line, Line]
    build_host: BuildHost
    build_s: Amount
    proof: LanguageProof | None
    proof_reason: str | None = None
    notes: tuple[str, ...] = ()
    key: Sha256
    created: Line


@dataclass(frozen=True, kw_only=True)
class LanguageArtifact:
    """A folder and its manifest.

    Attributes:
        directory: The folder.
        manifest: As it was read or written.
        seal: The hash of the manifest, and so of all that it hashes: two artifacts with one seal are the same.
    """

    directory: Path
    manifest: LanguageManifest
    seal: str


def is_language_artifact(directory: Path) -> bool:
    """Whether a folder says of itself that it is an artifact that generates text; it may be a damaged one."""
    try:
        return read_json(directory / MANIFEST, "an artifact's manifest").get("kind") == KIND
    except BadInputError:
        return False


def write_language_manifest(directory: Path, manifest: LanguageManifest) -> LanguageArtifact:
    """Writes `artifact.json`; the last step of a build, after which the folder is an artifact."""
    seal = write_sealed(directory / MANIFEST, manifest)
    return LanguageArtifact(directory=directory, manifest=manifest, seal=seal)


def open_language_artifact(directory: Path) -> LanguageArtifact:
    """Reads an artifact's manifest; its files are not touched.

    Raises:
        BadInputError: No manifest, one that was edited, or one that this version does not understand.
    """
    path = directory / MANIFEST
    manifest, seal = read_sealed(LanguageManifest, path, what="an artifact's manifest", hint=_HINT)
    if manifest.model_file not in manifest.files:
        raise BadInputError(f"{path}: model_file: it has no hash in files", hint=_HINT)
    return LanguageArtifact(directory=directory, manifest=manifest, seal=seal)


def verify_language_files(artifact: LanguageArtifact) -> None:
    """Compares every file with the manifest.

    Raises:
        BadInputError: A file is missing, changed, or was added; or something lies there that is no file.
    """
    faults = list(find_changes(artifact.directory, artifact.manifest.files))
    if faults:
        raise BadInputError(
            f"artifact {artifact.directory} is not what was built: {'; '.join(faults)}",
            hint="build it again, or copy the whole folder again",
        )
