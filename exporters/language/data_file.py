"""Writes the weights of a graph beside it, tensor by tensor, so that memory holds one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.exporters.language.graph_writer import Weight
from modelwright.exporters.language.safetensors_files import StoredTensor, is_float

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BLOCK_NUMBERS = 4 * 2**20
"""That are read and written at a time: 16 MB."""
_PAGE_BYTES = 4096
"""Runtimes map the file: a tensor begins on a page."""
_LISTED = 4


def require_weights(weights: Sequence[Weight], stored: Mapping[str, StoredTensor], folder: Path) -> None:
    """Checks that a folder has each weight of a graph, in its shape, and as floats.

    Raises:
        BadInputError: Names those that are missing, of another shape or not floats.
    """
    wanted = [weight for weight in weights if weight.make is None]
    missing = [weight.name for weight in wanted if weight.name not in stored]
    if missing:
        raise BadInputError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} tensors that its config.json asks for: "
            f"{_list_some(missing)}",
            hint="config.json and weights belong to different models: download the folder again",
        )
    odd = [
        f"{weight.name} is {list(stored[weight.name].shape)}, expected {list(weight.source_shape)}"
        for weight in wanted
        if stored[weight.name].shape != weight.source_shape
    ]
    if odd:
        raise BadInputError(
            f"{folder} has tensors that do not fit its config.json: {_list_some(odd)}",
            hint="config.json and weights belong to different models: download the folder again",
        )
    packed = sorted({stored[weight.name].dtype for weight in wanted if not is_float(stored[weight.name])})
    if packed:
        raise BadInputError(
            f"{folder} has weights of the type {', '.join(packed)}, expected floats: it is quantized already",
            hint="take the model as it was before it was quantized",
        )


def write_data(
    model: onnx.ModelProto, weights: Sequence[Weight], stored: Mapping[str, StoredTensor], path: Path
) -> None:
    """Writes the data file of a model and enters its initializers.

    Args:
        model: Whose graph names them.
        weights: In the order in which they shall lie.
        stored: Name -> where the source has it.
        path: The data file, beside the model.
    """
    import onnx

    with path.open("wb") as file:
        for weight in weights:
            file.seek(-file.tell() % _PAGE_BYTES, 1)
            tensor = model.graph.initializer.add(
                name=weight.name,
                data_type=onnx.TensorProto.FLOAT,
                dims=weight.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            places = {"location": path.name, "offset": file.tell(), "length": weight.size_bytes}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=str(value))
            for block in _read_blocks(weight, stored):
                block.astype("<f4", copy=False).tofile(file)


def _read_blocks(weight: Weight, stored: Mapping[str, StoredTensor]) -> Iterator[NDArray[np.float32]]:
    if weight.make is not None:
        yield weight.make()
    elif not weight.transposed:
        for block in stored[weight.name].read_blocks(_BLOCK_NUMBERS):
            yield block + np.float32(weight.plus) if weight.plus else block
    else:
        turned = stored[weight.name].read().T
        rows = max(1, _BLOCK_NUMBERS // turned.shape[1])
        for start in range(0, len(turned), rows):
            yield np.ascontiguousarray(turned[start : start + rows])


def _list_some(names: Sequence[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
