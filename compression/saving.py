"""A network as a folder: its program, which is a source like any other, and its weights alone. For child processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.compression.network import Network
from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError
from modelwright.core.files import hash_file
from modelwright.core.records.compressed import COMPRESSED_PROGRAM, COMPRESSED_WEIGHTS
from modelwright.exporters.torch.export import Captured, capture, name_outputs, write_program
from modelwright.exporters.torch.source import TorchSource, import_torch


def require_savable(network: Network) -> None:
    """Refuses a network that could not be saved once it is trained, before anybody waits for that.

    Raises:
        BadInputError: torch cannot capture it.
    """
    if network.is_program:
        return
    try:
        _capture(network)
    except ModelwrightError as error:
        raise BadInputError(
            f"{network.name} cannot be captured as a program, and so not be saved after its training: {error.message}",
            hint=error.hint,
            detail=error.detail,
        ) from error


def _capture(network: Network) -> tuple[TorchSource, Captured, ModelwrightError | None]:
    """Returns a network in the mode of inference, captured; and why its batch is fixed, where it is."""
    network.set_training(training=False)
    named = list(network.examples.items())
    source = TorchSource(
        name=network.name,
        module=network.module,
        args=tuple(value for _, value in named[: network.positional]),
        kwargs=dict(named[network.positional :]),
        output_names=network.output_names,
    )
    try:
        return source, capture(source, dynamic=True), None
    except ModelwrightError as error:
        return source, capture(source, dynamic=False), error


def save_network(network: Network, folder: Path, *, hide_examples: bool) -> dict[str, str]:
    """Writes a network in the mode of inference.

    Args:
        network: What is saved.
        folder: Where.
        hide_examples: Save zeros in the place of the example inputs, since these are rows of the user's data.

    Returns:
        File name -> SHA-256.

    Raises:
        BuildFailedError: torch cannot capture or save it.
    """
    from safetensors.torch import save

    torch = import_torch()
    source, captured, refusal = _capture(network)
    if refusal is not None:
        network.notes.append(f"the batch of the program is fixed: with a dynamic one, {refusal.message[:300]}")
    args, kwargs = source.args, source.kwargs
    captured.output_names = name_outputs(source, captured)
    examples: tuple[tuple[Any, ...], dict[str, Any]] = (args, kwargs)
    if hide_examples:
        examples = (
            tuple(map(torch.zeros_like, args)),
            {name: torch.zeros_like(value) for name, value in kwargs.items()},
        )
    if not write_program(source, captured, folder / COMPRESSED_PROGRAM, examples):
        raise BuildFailedError(f"{network.name} was compressed, and cannot be saved: {source.notes[-1]}")
    # Not `save_file`: nobody but its owner may read what that writes.
    (folder / COMPRESSED_WEIGHTS).write_bytes(save(network.copy_state()))
    return {name: hash_file(folder / name) for name in (COMPRESSED_PROGRAM, COMPRESSED_WEIGHTS)}
