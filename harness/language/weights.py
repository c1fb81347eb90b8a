"""What the weights of an artifact take: parameters, bits a weight, sizes by kind of layer, reduction against FP32."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import Amount, Count, Number, Record
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import PROMPTS, LanguageArtifact
from modelwright.targets.language.table import get_target

_FP32_BYTES = 4
_OTHERS = "graph and tables"
_PATTERNS = {
    "norms and biases": re.compile(r"norm|\bln_|\.bias|\bwpe\b"),
    "embedding": re.compile(r"embed_tokens|\bwte\b"),
    "head": re.compile(r"lm_head|^logits"),
    "attention": re.compile(r"attn|attention"),
    "feed-forward": re.compile(r"\bmlp\b"),
}
"""Kind -> how the names of its weights are recognised, the first that fits."""


class KindOfLayer(Record):
    """All layers of one kind.

    Attributes:
        kind: Such as `attention`.
        num_parameters: Of all of them.
        fp32_bytes: In FP32.
        stored_bytes: In this artifact's files, scales and zero points included.
        bits_per_weight: Of these, for each parameter; null for what has none.
    """

    kind: str
    num_parameters: Count
    fp32_bytes: Count
    stored_bytes: Count
    bits_per_weight: Amount | None


class Weights(Record):
    """The weights of an artifact.

    Attributes:
        num_parameters: Of the model, a tied table once.
        weights_bytes: Of its files without the tokenizer's and the prompts: graph, scales and padding included.
        bits_per_weight: Of these, for each parameter.
        fp32_bytes: Of all parameters in FP32.
        reduction: Share of that which is saved; less than 0 where the artifact is larger.
        kinds: By kind of layer; the last one is what belongs to none: the graph, tables of positions, alignment.
    """

    num_parameters: Count
    weights_bytes: Count
    bits_per_weight: Amount
    fp32_bytes: Count
    reduction: Number
    kinds: tuple[KindOfLayer, ...]


def describe_weights(artifact: LanguageArtifact) -> Weights:
    """Counts the weights of an artifact by its manifest and its files, which a child reads.

    Raises:
        BadInputError: A file that the manifest lists is not there, or damaged.
        ToolchainMissingError: The package that reads them is absent.
    """
    manifest = artifact.manifest
    model = manifest.model
    others = {PROMPTS, *model.tokenizer_files}
    try:
        weights_bytes = sum((artifact.directory / name).stat().st_size for name in manifest.files if name not in others)
    except OSError as error:
        raise BadInputError(
            f"{error.filename} cannot be read: {error.strerror}", hint="copy the whole folder again"
        ) from error
    stored = run_in_child(
        "modelwright.harness.language.weights:measure_kinds_in_child",
        {"target": manifest.target, "directory": str(artifact.directory), "model_file": manifest.model_file},
        purpose=f"reading {manifest.model_file}",
        crash_error=BadInputError,
    )
    if model.tied_embeddings:  # one table for both, which some runtimes name after the head
        stored["embedding"] = stored.get("embedding", 0) + stored.pop("head", 0)
    fp32_bytes = model.num_parameters * _FP32_BYTES
    return Weights(
        num_parameters=model.num_parameters,
        weights_bytes=weights_bytes,
        bits_per_weight=8 * weights_bytes / model.num_parameters,
        fp32_bytes=fp32_bytes,
        reduction=1 - weights_bytes / fp32_bytes,
        kinds=tuple(_join(count_parameters(model), stored, weights_bytes)),
    )


def measure_kinds_in_child(target: str, directory: str, model_file: str, progress: Progress) -> dict[str, int]:
    """Returns kind of layer -> bytes in an artifact's files."""
    progress(f"reading {model_file}")
    sizes: dict[str, int] = {}
    for tensor in get_target(target).list_stored(Path(directory), model_file):
        kind = name_kind(tensor.name)
        sizes[kind] = sizes.get(kind, 0) + tensor.size_bytes
    return sizes


def name_kind(name: str) -> str:
    """Returns the kind of layer that a tensor belongs to, by the source's name for it."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(name)), _OTHERS)


def count_parameters(model: LanguageModel) -> dict[str, int]:
    """Returns kind -> parameters, by the model's shape: all that is left of its matrices are norms and biases."""
    query, key = model.attention_heads * model.head_dim, model.kv_heads * model.head_dim
    attention = model.layers * model.hidden_size * (2 * query + 2 * key)
    table = model.vocab_size * model.hidden_size
    head = 0 if model.tied_embeddings else table
    rest = model.num_parameters - attention - table - head
    # Three matrices where the unit is gated, two where it is not: which, the number of parameters says.
    matrix = model.layers * model.hidden_size * model.intermediate_size
    feed_forward = matrix * (3 if rest >= 3 * matrix else 2)
    return {
        "embedding": table,
        "attention": attention,
        "feed-forward": feed_forward,
        "head": head,
        "norms and biases": max(0, rest - feed_forward),
    }


def _join(counted: Mapping[str, int], stored: Mapping[str, int], weights_bytes: int) -> Iterator[KindOfLayer]:
    for kind, count in counted.items():
        size = stored.get(kind, 0)
        if count or size:
            yield KindOfLayer(
                kind=kind,
                num_parameters=count,
                fp32_bytes=count * _FP32_BYTES,
                stored_bytes=size,
                bits_per_weight=8 * size / count if count else None,
            )
    rest = max(0, weights_bytes - sum(stored.get(kind, 0) for kind in counted))
    yield KindOfLayer(kind=_OTHERS, num_parameters=0, fp32_bytes=0, stored_bytes=rest, bits_per_weight=None)
