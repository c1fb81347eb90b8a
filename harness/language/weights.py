"""What the weights of an artifact take: parameters, bits a weight, sizes by kind of layer, reduction against FP32."""

from __future__ import annotations

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import Amount, Count, Number, Record
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import PROMPTS, LanguageArtifact

_FP32_BYTES = 4


class KindOfLayer(Record):
    """All layers of one kind.

    Attributes:
        kind: Such as `attention`.
        num_parameters: Of all of them.
        fp32_bytes: In FP32.
        stored_bytes: In this artifact; null where its runtime does not tell layers apart.
    """

    kind: str
    num_parameters: Count
    fp32_bytes: Count
    stored_bytes: Count | None = None


class Weights(Record):
    """The weights of an artifact.

    Attributes:
        num_parameters: Of the model, a tied table once.
        weights_bytes: Of its files without the tokenizer's and the prompts: graph, scales and padding included.
        bits_per_weight: Of these, for each parameter.
        fp32_bytes: Of all parameters in FP32.
        reduction: Share of that which is saved; less than 0 where the artifact is larger.
        kinds: By kind of layer.
        reason: Why kinds have no sizes as stored; null where they have.
    """

    num_parameters: Count
    weights_bytes: Count
    bits_per_weight: Amount
    fp32_bytes: Count
    reduction: Number
    kinds: tuple[KindOfLayer, ...]
    reason: str | None = None


def describe_weights(artifact: LanguageArtifact) -> Weights:
    """Counts the weights of an artifact by its manifest and the sizes of its files.

    Raises:
        BadInputError: A file that the manifest lists is not there.
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
    fp32_bytes = model.num_parameters * _FP32_BYTES
    return Weights(
        num_parameters=model.num_parameters,
        weights_bytes=weights_bytes,
        bits_per_weight=8 * weights_bytes / model.num_parameters,
        fp32_bytes=fp32_bytes,
        reduction=1 - weights_bytes / fp32_bytes,
        kinds=count_kinds(model),
        reason="sizes by kind are those of FP32: the artifact's file holds its layers in its runtime's own form",
    )


def count_kinds(model: LanguageModel) -> tuple[KindOfLayer, ...]:
    """Returns what the model's shape says of its matrices; all that is left are norms and biases."""
    query, key = model.attention_heads * model.head_dim, model.kv_heads * model.head_dim
    attention = model.layers * model.hidden_size * (2 * query + 2 * key)
    table = model.vocab_size * model.hidden_size
    head = 0 if model.tied_embeddings else table
    rest = model.num_parameters - attention - table - head
    # Three matrices where the unit is gated, two where it is not: which, the number of parameters says.
    matrix = model.layers * model.hidden_size * model.intermediate_size
    feed_forward = matrix * (3 if rest >= 3 * matrix else 2)
    counted = {
        "embedding": table,
        "attention": attention,
        "feed-forward": feed_forward,
        "head": head,
        "norms and rest": max(0, rest - feed_forward),
    }
    return tuple(
        KindOfLayer(kind=kind, num_parameters=count, fp32_bytes=count * _FP32_BYTES)
        for kind, count in counted.items()
        if count
    )
