"""A model of transformers whose weights are read where they are used and forgotten afterwards, for little memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.exporters.language.safetensors_files import StoredTensor, open_weights


def load_streamed(folder: Path) -> Any:
    """Returns a model that holds the weights of one module at a time, each read anew for each call.

    Args:
        folder: Of transformers, with all weights that the model asks for.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with _parameters_without_memory():
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
        )
    stored = open_weights(folder, f"{model.base_model_prefix}.")
    table = next(name for name, weight in model.named_parameters() if weight is model.get_input_embeddings().weight)
    for place, module in model.named_modules():
        names = {name: f"{place}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if config.tie_word_embeddings and module is model.get_output_embeddings():
            names = {"weight": table}
        if names:
            _stream(module, {name: stored[path] for name, path in names.items()})
    return model.eval()


def _stream(module: Any, tensors: Mapping[str, StoredTensor]) -> None:
    """Reads the weights of a module before it computes, and forgets them when it has."""
    import torch

    empty = {name: getattr(module, name) for name in tensors}

    def read(_module: Any, _inputs: Any) -> None:
        for name, tensor in tensors.items():
            setattr(module, name, torch.nn.Parameter(torch.from_numpy(tensor.read()), requires_grad=False))

    def forget(_module: Any, _inputs: Any, _outputs: Any) -> None:
        for name, parameter in empty.items():
            setattr(module, name, parameter)

    module.register_forward_pre_hook(read)
    module.register_forward_hook(forget)


@contextlib.contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Makes parameters that have a shape and no values; buffers, which are computed and not stored, keep theirs."""
    import torch

    original = torch.nn.Module.register_parameter

    def register(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        original(module, name, parameter)

    torch.nn.Module.register_parameter = register
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = original
