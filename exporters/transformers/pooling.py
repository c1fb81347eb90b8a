"""How a folder of sentence-transformers makes one vector of a text: `modules.json`, and what it lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.exporters.language.folder_files import has_nested_file
from modelwright.exporters.transformers.dense import Dense, make_dense, read_dense
from modelwright.exporters.transformers.factory import tell_factory

MODULES_FILE = "modules.json"
_CONFIG = "config.json"
_MODES: Mapping[str, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Way to pool -> how a config of earlier versions says so; of several ways this is the order there."""
_LARGEST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """What makes one vector of those of a text's tokens.

    Attributes:
        modes: Keys of `_MODES`, one or more.
        layers: What the vector goes through then; None stands for making its length 1.
        said: Whether the folder says so; else it is the mean, as sentence-transformers takes it.
        files: That say it, relative to the folder.
    """

    modes: tuple[str, ...] = ("mean",)
    layers: tuple[Dense | None, ...] = ()
    said: bool = False
    files: tuple[str, ...] = ()


def read_pooling(folder: Path) -> Pooling:
    """Reads what a folder says.

    Raises:
        BadInputError: Damaged, or modules that are not carried out here.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return Pooling()
    modes: tuple[str, ...] = ("mean",)
    layers, files = list[Dense | None](), [MODULES_FILE]
    for place, (kind, name) in enumerate(_list_modules(path)):
        if kind == "Transformer" and place == 0 and name in ("", "."):
            continue
        if kind == "Pooling" and place == 1:
            file = f"{name}/{_CONFIG}"
            if not has_nested_file(folder, file):
                raise BadInputError(f"{path} names {file}, which is not there", hint="download the folder again")
            modes, files = _read_modes(folder / file), [*files, file]
        elif kind == "Normalize" and place > 1:
            layers.append(None)
        elif kind == "Dense" and place > 1:
            dense = read_dense(folder, name)
            layers.append(dense)
            files += dense.files
        else:
            raise BadInputError(
                f"{path} lists {kind[:80]!r} in {name[:80]!r}: carried out are Transformer in the folder itself, "
                "Pooling, Dense, Normalize",
                hint=tell_factory(folder),
            )
    return Pooling(modes=modes, layers=tuple(layers), said=True, files=tuple(files))


def _list_modules(path: Path) -> list[tuple[str, str]]:
    """Returns the class and the folder of each module, in their order."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError("it is larger than 1 MiB")
        modules = json.loads(path.read_text(encoding="utf-8"))
        return [(str(each["type"]).rpartition(".")[2], str(each.get("path", ""))) for each in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInputError(
            f"{path} is no list of modules of sentence-transformers: {error}",
            hint="download the folder again",
        ) from error


def _read_modes(path: Path) -> tuple[str, ...]:
    config = read_json(path, "the pooling of sentence-transformers")
    named = config.get("pooling_mode")
    if named is None:
        named = [mode for mode, key in _MODES.items() if config.get(key)]
    modes = tuple(named if isinstance(named, list) else [named])  # vectors stand behind each other in this order
    if not modes or any(mode not in _MODES for mode in modes):
        raise BadInputError(
            f"{path} says none of the ways to pool that are known: {', '.join(_MODES)}",
            hint="download the folder again",
        )
    return modes


def make_pooling(torch: Any, pooling: Pooling, folder: Path) -> Any:
    """Returns a module that makes one vector a text of the vectors of its tokens and their mask.

    Args:
        torch: The package.
        pooling: How.
        folder: Of the model.

    Raises:
        BadInputError: A layer's weights are not its own.
    """

    class SentencePooling(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            made = (make_dense(torch, layer, folder) if layer else torch.nn.Identity() for layer in pooling.layers)
            self.layers = torch.nn.ModuleList(made)

        def forward(self, hidden: Any, mask: Any) -> Any:
            vector = pool(torch, hidden, mask, pooling.modes)
            for known, layer in zip(pooling.layers, self.layers, strict=True):
                vector = layer(vector) if known else torch.nn.functional.normalize(vector, p=2.0, dim=-1)
            return vector

    return SentencePooling()


def pool(torch: Any, hidden: Any, mask: Any, modes: Sequence[str]) -> Any:
    """Returns one vector a text.

    Args:
        torch: The package.
        hidden: Vectors of tokens, [batch, tokens, width].
        mask: 1 for a token and 0 for padding, [batch, tokens].
        modes: Ways to pool, whose vectors stand behind each other.
    """
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    vectors = [_pool_once(torch, hidden, weights, mode) for mode in modes]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)


def _pool_once(torch: Any, hidden: Any, weights: Any, mode: str) -> Any:
    if mode in ("cls", "lasttoken"):
        # Of texts that are padded on the left, the first token is not in the first place.
        places = torch.arange(hidden.shape[1]).unsqueeze(0).unsqueeze(-1).to(hidden.dtype)
        chosen = (places * weights).argmax(dim=1) if mode == "lasttoken" else weights.argmax(dim=1)
        return hidden.gather(1, chosen.unsqueeze(-1).expand(-1, 1, hidden.shape[2])).squeeze(1)
    if mode == "max":
        return hidden.masked_fill(weights == 0, -1e9).amax(dim=1)
    if mode == "weightedmean":
        places = torch.arange(1, hidden.shape[1] + 1).to(hidden.dtype).view(1, -1, 1)
        weights = weights * (places - weights.argmax(dim=1, keepdim=True))  # counted from the text's first token
    count = weights.sum(dim=1).clamp(min=1e-9)
    return (hidden * weights).sum(dim=1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
