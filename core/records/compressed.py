"""The record of a compressed model: what was done to which source, and what it cost. A folder with it is a source.

It lies in the folder as `compression.json`, beside the program that is exported from and the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import UNSET, UnsetType

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, is_plain_file
from modelwright.core.records.codec import Amount, Count, FileName, Line, Number, Record, Sha256, Share
from modelwright.core.records.pictures import Pictures
from modelwright.core.records.seal import read_sealed, write_sealed

COMPRESSION_RECORD = "compression.json"
COMPRESSED_PROGRAM = "model.pt2"
COMPRESSED_WEIGHTS = "weights.safetensors"
_HINT = "compress the source again"


class Quality(Record):
    """How good a network's answers are on some samples.

    Attributes:
        metric: `accuracy`, a share; `r2`, of the variance of each target that is explained, the mean over targets;
            `loss`, where the loss is the user's own.
        value: Of the metric; R2 may be far below 0.
        loss: Mean over samples.
        samples: It was taken on.
    """

    metric: Literal["accuracy", "r2", "loss"]
    value: Number
    loss: Number
    samples: Count

    @property
    def score(self) -> float:
        """More of it is better."""
        return -self.value if self.metric == "loss" else self.value

    def points_lost(self, after: Quality) -> float:
        """Returns how much worse another network is: hundredths of accuracy or R2, per cent that the loss rises."""
        scale = 100 / max(abs(self.value), 1e-12) if self.metric == "loss" else 100.0
        return (self.score - after.score) * scale

    def describe(self) -> str:
        """Returns for instance `accuracy 91.20 %`."""
        if self.metric == "accuracy":
            return f"accuracy {self.value:.2%}"
        return f"R2 {self.value:.4f}" if self.metric == "r2" else f"loss {self.value:.4g}"


class Size(Record):
    """What a network costs.

    Attributes:
        parameters: Trainable numbers.
        macs: Multiplications with an addition for one sample, in convolutions and products of matrices.
        weights_bytes: Of the state dict.
        deflated_bytes: Of the same after compression (zlib, level 6): the one place where zeros count.
        zero_share: Of all weights of convolutions and linear layers.
    """

    parameters: Count
    macs: Count
    weights_bytes: Count
    deflated_bytes: Count
    zero_share: Share


class Epoch(Record):
    """One pass over the training data; that of number 0 is the network before it.

    Attributes:
        number: From 1 on.
        loss: Mean while it was trained; None for number 0.
        held: On the part of the training data that is held back to choose among epochs.
    """

    number: Count
    loss: Number | None
    held: Quality


class Stage(Record):
    """A method, carried out.

    Attributes:
        method: As the user wrote it.
        parameters: Hyper-parameters, by name.
        epochs: All that were trained.
        chosen: Number of the epoch whose weights were taken.
        stopped: Why training ended early; None where it did not.
        seconds: That training took, all runs together.
        notes: Sentences for the user.
    """

    method: Line
    parameters: Mapping[str, str]
    epochs: tuple[Epoch, ...]
    chosen: Count
    stopped: Line | None
    seconds: Amount
    notes: tuple[str, ...]


class DataUsed(Record):
    """Data that trained or judged.

    Attributes:
        name: As the user wrote it, without folders.
        sha256: Of all values.
        samples: In it.
        pictures: How pictures became samples; absent where they were none.
    """

    name: Line
    sha256: Sha256
    samples: Count
    pictures: Pictures | UnsetType = UNSET


class CompressedModel(Record):
    """A network made smaller, and how.

    Attributes:
        key: Hash of what decides the result: source, methods, hyper-parameters, data.
        source: As the user wrote it.
        source_sha256: Of code and weights.
        methods: In their order.
        loss: That was trained with.
        seed: Of all chance.
        batch: Samples a step.
        train: What trained.
        evaluation: What judged; None where nothing did.
        stages: One a method.
        before: What the source costs.
        after: What the result costs.
        quality_before: The source, on the data that judges, else on what is held back of the training data.
        quality_after: The result, on the same.
        sparsity: Layer -> share of its weights that are 0.
        files: Name -> SHA-256 of what lies beside this record.
        versions: Package -> version.
        notes: Sentences for the user.
    """

    schema: Literal[1] = 1
    key: Sha256
    source: str
    source_sha256: Sha256
    methods: tuple[str, ...]
    loss: str
    seed: Count
    batch: Count
    train: DataUsed
    evaluation: DataUsed | None
    stages: tuple[Stage, ...]
    before: Size
    after: Size
    quality_before: Quality
    quality_after: Quality
    sparsity: Mapping[str, Share]
    files: Mapping[FileName, Sha256]
    versions: Mapping[str, str]
    notes: tuple[str, ...]


def is_compressed_folder(folder: Path) -> bool:
    """Whether a folder says of itself that it holds a compressed model."""
    return (folder / COMPRESSION_RECORD).is_file()


def save_compressed(record: CompressedModel, folder: Path) -> None:
    """Writes the record into a folder; the last step of a compression."""
    write_sealed(folder / COMPRESSION_RECORD, record)


def load_compressed(folder: Path) -> CompressedModel:
    """Reads the record of a folder and checks that the files in it are those that it lists.

    Raises:
        BadInputError: No record, or a file that is missing or was changed.
    """
    path = folder / COMPRESSION_RECORD
    record, _ = read_sealed(CompressedModel, path, what="the record of a compressed model", hint=_HINT)
    if COMPRESSED_PROGRAM not in record.files:
        raise BadInputError(f"{path}: files: it does not list {COMPRESSED_PROGRAM}", hint=_HINT)
    for name, sha256 in record.files.items():
        if not is_plain_file(folder, name):
            raise BadInputError(f"{folder / name} is no plain file in this folder; {path.name} lists it", hint=_HINT)
        if hash_file(folder / name) != sha256:
            raise BadInputError(f"{folder / name} was changed after {path.name} was written", hint=_HINT)
    return record
