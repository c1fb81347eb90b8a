"""The record of an exported language model: `language.json` beside the graph, its weights and the tokenizer's files.

A model is used only while the hashes of its files are the record's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, is_plain_file
from modelwright.core.records.codec import Amount, Count, FileName, Line, Record, Sha256
from modelwright.core.records.seal import read_sealed, write_sealed

LANGUAGE_RECORD = "language.json"
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
_HINT = "export the model again"


class LanguageSource(Record):
    """What a language model was exported from.

    Attributes:
        kind: A folder of transformers, a GGUF file, or a model of a hub.
        path: As the user wrote it; of a model of a hub, `owner/name@commit`.
        sha256: Of the files that decide the model: its config and its weights.
        files: Name -> SHA-256 of these.
        weights_dtype: Of most weights, such as `bfloat16`; the export holds them as float32.
    """

    kind: Literal["folder", "gguf", "hub"]
    path: str
    sha256: Sha256
    files: Mapping[FileName, Sha256]
    weights_dtype: Line


class LogitsError(Record):
    """How far logits are from those of the source's own implementation.

    Attributes:
        case: What was computed, such as `prefill`.
        positions: Next-token distributions that were compared.
        relative_l2_error: Of all of them together.
        tolerance: The largest of these that passes.
        max_abs_error: Of one logit.
    """

    case: Line
    positions: Count
    relative_l2_error: Amount
    tolerance: Amount
    max_abs_error: Amount


class LanguageVerification(Record):
    """How an export was held against transformers' own implementation of the same folder.

    Attributes:
        by: What computed the reference.
        cases: What was compared.
        greedy_tokens: That both were asked for, each fed with its own.
        equal_tokens: From the first on, how many of these are the same.
        near_tie: Where they part, how far the source's own token led the other one, over its largest logit; None
            where they do not part.
    """

    by: Line
    cases: tuple[LogitsError, ...]
    greedy_tokens: Count
    equal_tokens: Count
    near_tie: Amount | None

    @property
    def worst(self) -> LogitsError | None:
        """The case that is furthest from the source; None where none was compared."""
        return max(self.cases, key=lambda case: case.relative_l2_error, default=None)


class LanguageModel(Record):
    """A verified FP32 graph of a causal language model, which takes and gives its cache.

    Attributes:
        architecture: As its config names it, such as `LlamaForCausalLM`.
        kind: Its model type there, such as `llama`.
        layers: Decoder blocks.
        hidden_size: Channels between them.
        intermediate_size: Channels inside the feed-forward parts.
        attention_heads: Of the queries.
        kv_heads: Of keys and values, whose tensors in the cache are [batch, kv_heads, tokens, head_dim].
        head_dim: Channels of a head.
        vocab_size: Logits of a position.
        context_length: Tokens that it was made for.
        sliding_window: Tokens that windowed layers look back over; None where all layers see all.
        tied_embeddings: Whether the head reads the embedding table.
        bos_token_id: That begins a text; None where there is none.
        eos_token_ids: That end an answer.
        pad_token_id: That fills a batch; None where there is none.
        num_parameters: Weights, a tied table once.
        opset: Of the graph.
        source: What it was exported from.
        files: Name -> SHA-256: the graph and its data.
        tokenizer_files: Name -> SHA-256 of what turns text into tokens and back, and of what says how to generate.
        size_bytes: Of graph and data.
        verification: With the source; None with `verification_reason`.
        verification_reason: Why it was not compared.
        notes: Sentences for the user.
        versions: Package -> version of what made and checked it.
    """

    schema: Literal[1] = 1
    architecture: Line
    kind: Line
    layers: Count
    hidden_size: Count
    intermediate_size: Count
    attention_heads: Count
    kv_heads: Count
    head_dim: Count
    vocab_size: Count
    context_length: Count
    sliding_window: Count | None
    tied_embeddings: bool
    bos_token_id: Count | None
    eos_token_ids: tuple[Count, ...]
    pad_token_id: Count | None
    num_parameters: Count
    opset: Count
    source: LanguageSource
    files: Mapping[FileName, Sha256]
    tokenizer_files: Mapping[FileName, Sha256]
    size_bytes: Count
    verification: LanguageVerification | None
    verification_reason: Line | None
    notes: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def cache_bytes_per_token(self) -> int:
        """What the cache takes for a token of a row, in float32."""
        return 2 * 4 * self.layers * self.kv_heads * self.head_dim

    @property
    def sha256(self) -> str:
        """Of the graph; its weights are among the hashes of the record, which no one edits unseen."""
        return self.files[GRAPH_FILE]

    def summarize(self) -> str:
        """Returns a line for people: architecture, size, parameters, and how it follows its source."""
        parts = [
            f"{self.architecture}: {_format_millions(self.size_bytes)} MB",
            f"{_format_millions(self.num_parameters, 1)}M parameters",
            f"{self.layers} layers",
            f"context of {self.context_length:,} tokens",
        ]
        found = self.verification
        if found is None:
            parts.append(self.verification_reason or "not compared with its source")
        elif found.worst is not None:
            parts.append(
                f"relative error {found.worst.relative_l2_error:.1e} ({found.worst.case}), "
                f"{found.equal_tokens} of {found.greedy_tokens} greedy tokens equal"
            )
        return ", ".join(parts)


def _format_millions(value: int, decimals: int = 0) -> str:
    """Returns `540` or, of what is less than one, `0.15`."""
    millions = value / 1e6
    return f"{millions:.2g}" if millions < 1 else f"{millions:,.{decimals}f}"


def is_language_folder(folder: Path) -> bool:
    """Whether a folder holds an exported language model."""
    return is_plain_file(folder, LANGUAGE_RECORD)


def save_language(folder: Path, model: LanguageModel) -> None:
    """Writes the record; the last step of an export."""
    write_sealed(folder / LANGUAGE_RECORD, model)


def load_language(folder: str | Path, *, verify: bool = True) -> LanguageModel:
    """Reads the record of an exported language model and checks that its files are still those that it describes.

    Args:
        folder: That holds it.
        verify: Compare the hashes of the files; takes a second per gigabyte.

    Raises:
        BadInputError: No record, an unknown one, or files that are missing or were changed.
    """
    folder = Path(folder)
    path = folder / LANGUAGE_RECORD
    model, _ = read_sealed(LanguageModel, path, what="the record of a language model", hint=_HINT)
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        if name not in model.files:
            raise BadInputError(f"{path}: files: {name} has no hash there", hint=_HINT)
    for name, sha256 in {**model.files, **model.tokenizer_files}.items():
        if not is_plain_file(folder, name):
            fault = "is no plain file in this folder" if (folder / name).exists() else "is missing"
            raise BadInputError(f"{folder / name} {fault}; {path.name} lists it", hint=_HINT)
        if verify and hash_file(folder / name) != sha256:
            raise BadInputError(f"{folder / name} was changed after {path.name} was written", hint=_HINT)
    return model
