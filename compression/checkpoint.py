"""What is kept of a compression that goes on: enough for the same command to go on from the last whole epoch.

Tensors lie in safetensors files, everything else in a sealed record that names them. The record is replaced last, and
files that it does not name are removed afterwards: whenever the process is killed, the record tells a whole state.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from modelwright.core.errors import BadInputError
from modelwright.core.files import is_plain_file
from modelwright.core.records.codec import Amount, Count, FileName, Line, Record, Sha256
from modelwright.core.records.compressed import Epoch, Stage
from modelwright.core.records.seal import read_sealed, write_sealed

CHECKPOINT_FOLDER = "checkpoint"
_RECORD = "checkpoint.json"
BEST, LAST = "best", "last"


class Progress(Record):
    """How far a compression is.

    Attributes:
        key: Of what is compressed; see `CompressedModel`.
        done: Methods that were carried out.
        epochs: Of the method at hand.
        chosen: Number of its best epoch; None before there is one that may be shipped.
        stopped: Why its training ended early.
        is_trained: Whether its training is over.
        seconds: That its training took.
        files: What a file holds -> its name: `best`, `last`, and `start-N`, the weights before method N.
    """

    schema: Literal[1] = 1
    key: Sha256
    done: tuple[Stage, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    chosen: Count | None = None
    stopped: Line | None = None
    is_trained: bool = False
    seconds: Amount = 0.0
    files: Mapping[str, FileName] = {}


class Checkpoint:
    """A folder that a compression is kept in while it goes on.

    Args:
        folder: The folder of the result.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CHECKPOINT_FOLDER
        self.progress: Progress | None = None

    def open(self, key: str, *, renew: bool = False) -> Progress | None:
        """Reads what an earlier run left; with `renew`, what another compression left goes.

        Raises:
            BadInputError: It was another compression, or is damaged.
        """
        path = self.folder / _RECORD
        if not path.exists():
            return None
        hint = "give another --out, or add --overwrite to begin anew"
        progress, _ = read_sealed(Progress, path, what="the checkpoint of a compression", hint=hint)
        if progress.key != key and renew:
            self.remove()
            return None
        if progress.key != key:
            raise BadInputError(
                f"{self.folder.parent} holds an unfinished compression of another source, or with other methods, data "
                "or settings",
                hint=hint,
            )
        self.progress = progress
        return progress

    def save(self, progress: Progress, tensors: Mapping[str, Mapping[str, Any]]) -> Progress:
        """Keeps a state: new tensors first, then the record, then what is not needed any more goes.

        Args:
            progress: The state; `files` names those of earlier states that stay.
            tensors: What -> tensors that are new.

        Returns:
            The state with all of its files.
        """
        from msgspec.structs import replace
        from safetensors.torch import save

        self.folder.mkdir(parents=True, exist_ok=True)
        taken, files = {path.name for path in self.folder.iterdir()}, dict(progress.files)
        for what, state in tensors.items():
            name = next(name for number in range(10**6) if (name := f"{what}-{number}.safetensors") not in taken)
            (self.folder / name).write_bytes(save(dict(state)))  # so that a full disk is an OSError
            files[what] = name
        self.progress = replace(progress, files=files)
        write_sealed(self.folder / _RECORD, self.progress)
        for name in taken - set(files.values()) - {_RECORD}:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        return self.progress

    def load(self, what: str) -> dict[str, Any]:
        """Returns tensors that were kept.

        Raises:
            BadInputError: The file is not there any more, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        assert self.progress is not None
        name = self.progress.files[what]
        try:
            if is_plain_file(self.folder, name):
                return dict(load_file(str(self.folder / name)))
            fault = "it is not there, or no plain file"
        except (OSError, SafetensorError) as error:
            fault = str(error)
        raise BadInputError(
            f"{self.folder / name} cannot be read: {fault}", hint="add --overwrite to begin the compression anew"
        )

    def remove(self) -> None:
        """Takes the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)
