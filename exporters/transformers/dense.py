"""The `Dense` module of sentence-transformers: a linear layer behind the pooling, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.exporters.language.folder_files import has_nested_file
from modelwright.exporters.transformers.factory import tell_factory

DENSE_CONFIG, DENSE_WEIGHTS = "config.json", "model.safetensors"
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
"""Of `torch.nn`; sentence-transformers names them by their whole path, and takes Tanh where none is named."""
_PACKAGE = "torch.nn."
_VECTOR = "sentence_embedding"


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A layer.

    Attributes:
        folder: That it lies in, relative to the model's.
        width_in: Of the vector that it takes.
        width_out: Of the one that it gives.
        bias: Whether it has one.
        activation: Class of `torch.nn`.
        residual: Whether what it takes is added to what it gives.
    """

    folder: str
    width_in: int
    width_out: int
    bias: bool
    activation: str
    residual: bool

    @property
    def files(self) -> tuple[str, str]:
        """That say and hold it, relative to the model's folder."""
        return f"{self.folder}/{DENSE_CONFIG}", f"{self.folder}/{DENSE_WEIGHTS}"


def read_dense(folder: Path, name: str) -> Dense:
    """Reads what a layer is.

    Args:
        folder: Of the model.
        name: Of the layer's, in it.

    Raises:
        BadInputError: Damaged, without safetensors, or a kind that is not carried out here.
    """
    for file in (DENSE_CONFIG, DENSE_WEIGHTS):
        if not has_nested_file(folder, f"{name}/{file}"):
            raise BadInputError(
                f"{folder} names the layer {name[:80]!r}, and {name[:80]}/{file} is not there",
                hint="save it again with sentence-transformers, SentenceTransformer(folder).save(folder), or download "
                "all of it",
            )
    path = folder / name / DENSE_CONFIG
    config = read_json(path, "a layer of sentence-transformers")
    sizes = [config.get(key) for key in ("in_features", "out_features")]
    widths = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    if len(widths) < len(sizes):
        raise BadInputError(f"{path} has no in_features and out_features", hint="download the folder again")
    activation = str(config.get("activation_function") or f"{_PACKAGE}Tanh")
    kind = activation.rpartition(".")[2]
    if not _reads_vectors(config) or kind not in _ACTIVATIONS or not activation.startswith(_PACKAGE):
        raise BadInputError(
            f"{path} asks for {activation[:80]!r} of {config.get('module_input_name', _VECTOR)!r:.80}: carried out are "
            f"{', '.join(_ACTIVATIONS)} of {_VECTOR}",
            hint=tell_factory(folder),
        )
    return Dense(
        folder=name,
        width_in=widths[0],
        width_out=widths[1],
        bias=bool(config.get("bias", True)),
        activation=kind,
        residual=bool(config.get("use_residual", False)),
    )


def _reads_vectors(config: Mapping[str, Any]) -> bool:
    names = [config.get(key) for key in ("module_input_name", "module_output_name")]
    return all(name in (None, _VECTOR) for name in names)


def make_dense(torch: Any, dense: Dense, folder: Path) -> Any:
    """Returns a layer with its weights.

    Args:
        torch: The package.
        dense: The layer.
        folder: Of the model.

    Raises:
        BadInputError: The weights are not its own.
    """
    from safetensors.torch import load_file

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(dense.width_in, dense.width_out, bias=dense.bias)
            self.activation = getattr(torch.nn, dense.activation)()
            if dense.residual and dense.width_in != dense.width_out:
                self.residual = torch.nn.Linear(dense.width_in, dense.width_out, bias=False)

        def forward(self, vector: Any) -> Any:
            found = self.activation(self.linear(vector))
            if not dense.residual:
                return found
            return found + (vector if dense.width_in == dense.width_out else self.residual(vector))

    layer, path = Layer(), folder / dense.folder / DENSE_WEIGHTS
    try:
        layer.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise whatever a wrong file leads to
        raise BadInputError(
            f"{path} does not hold the layer's weights", hint="download the folder again", detail=str(error)
        ) from error
    return layer
