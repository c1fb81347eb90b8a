"""Models of a hub by their names, `owner/name` or `owner/name@revision`: fetched into huggingface_hub's own cache.

Weights as safetensors, configs and tokenizers are fetched, and nothing that runs; a child asks the network, with as
long as a download takes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.process.child import Progress, run_in_child

_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(rf"(?P<name>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][\w./-]{{0,99}}))?")
_FILES = re.compile(
    r"\.(onnx|pt2|pt|pth|ckpt|bin|safetensors|gguf|tflite|engine|plan|h5|keras|pb|xml|npz|json|toml|py)$"
)
_CONFIG = "config.json"
_PLAIN = (
    *(_CONFIG, "generation_config.json", "modules.json", "sentence_bert_config.json", "?_*/config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("?_Dense/model.safetensors", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
)
_TRUSTED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
"""Fetched where the user trusts who made them, and there are no safetensors."""
_TIMEOUT_S = 12 * 3600.0
_CACHED = re.compile(r"models--(.+)")


def is_hub_name(source: str | Path, beside: Path | None = None) -> bool:
    """Whether a source is the name of a model of a hub: nothing here is called so, and it is no name of a file.

    Args:
        source: As the user wrote it.
        beside: The folder that its path would be relative to; None for the working directory.
    """
    text = str(source)
    match = _NAME.fullmatch(text)
    return match is not None and not _FILES.search(match["name"]) and not Path(beside or "", text).exists()


def name_snapshot(folder: Path) -> str | None:
    """Returns what a folder of a hub's cache holds, as `owner/name@commit`; None for other folders."""
    place = folder.absolute()
    cached = _CACHED.fullmatch(place.parent.parent.name)
    if place.parent.name != "snapshots" or cached is None:
        return None
    return f"{cached[1].replace('--', '/', 1)}@{place.name}"


def fetch(source: str, *, trust: bool = False, progress: Progress | None = None) -> Path:
    """Returns the folder of a model of a hub, in the cache; what lies there already is not fetched again.

    Args:
        source: `owner/name`, or `owner/name@revision`.
        trust: Fetch pickled weights where there are no others.
        progress: Takes a line now and then.

    Raises:
        BadInputError: There is no such model, it may not be had, or the hub cannot be reached.
        ToolchainMissingError: huggingface_hub is not installed.
    """
    match = _NAME.fullmatch(source)
    assert match is not None
    found = run_in_child(
        "modelwright.exporters.hub:fetch_in_child",
        {"name": match["name"], "revision": match["revision"], "trust": trust},
        purpose=f"fetching {source}",
        crash_error=BadInputError,
        timeout_s=_TIMEOUT_S,
        progress=progress,
        environment={"HF_HUB_DISABLE_TELEMETRY": "1"},
    )
    return Path(found)


def fetch_in_child(name: str, revision: str | None, trust: bool, progress: Progress) -> str:
    """Child side of `fetch`; returns the folder."""
    try:
        from huggingface_hub import constants, errors, snapshot_download
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"Python package {error.name} is not installed; models of a hub need it",
            hint="pip install 'modelwright[llm]'",
        ) from error

    class Bar(tqdm):  # type: ignore[misc]
        """Tells of bytes in the place of drawing."""

        def display(self, *_: Any, **__: Any) -> bool:
            if self.unit == "B" and self.total:
                progress(f"{name}: {self.n / 1e6:,.0f} of {self.total / 1e6:,.0f} MB")
            return True

    def download(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), tqdm_class=Bar))

    what = f"{name}@{revision}" if revision else name
    progress(f"asking {constants.ENDPOINT} for {what}")
    try:
        folder = download(_PLAIN)
        if trust and not any(folder.glob("*.safetensors")):
            folder = download((*_PLAIN, *_TRUSTED))
    except errors.GatedRepoError as error:
        raise BadInputError(
            f"{what} is given only to users that its maker let in",
            hint=f"ask for it at {constants.ENDPOINT}/{name}, then `hf auth login`",
            detail=str(error),
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise BadInputError(
            f"no such source: there is no file or folder {what}, and {constants.ENDPOINT} has no such model, or "
            "shows it to its owner alone",
            hint="check path, name and revision; `hf auth login` for a private one",
            detail=str(error),
        ) from error
    except Exception as error:  # without a network it may be any of several libraries' errors
        raise BadInputError(
            f"no such source: there is no file or folder {what}, and {constants.ENDPOINT} cannot be asked for a model "
            "of that name",
            hint="give the path of a folder or file; or see that the network, HF_ENDPOINT and HF_HUB_OFFLINE let it be "
            "fetched",
            detail=str(error),
        ) from error
    if not (folder / _CONFIG).exists():
        raise BadInputError(
            f"{what} is no model of transformers: it has no {_CONFIG}",
            hint="give the name of one that transformers reads",
        )
    return str(folder)
