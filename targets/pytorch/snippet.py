"""A program that runs an artifact in PyTorch on the CPU, set as `TorchSession` sets it."""

from __future__ import annotations

from modelwright.core.records.signature import Signature
from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import choose_shape, join_lines, quote_python


def write_python(model_file: str, signature: Signature, settings: RunSettings, *, compiled: bool) -> str:
    """Returns the program; `compiled` says whether it is run through `torch.compile`."""
    chosen, several = settings.options, settings.requests > 1
    channels_last = bool(chosen.get("channels-last"))
    shapes = [(choose_shape(spec), spec.dtype) for spec in signature.inputs]
    layout = ".contiguous(memory_format=torch.channels_last)"
    inputs = [
        f"    torch.zeros({shape}, dtype=torch.{dtype}){layout if channels_last and len(shape) == 4 else ''},"
        for shape, dtype in shapes
    ]
    outputs = ", ".join(quote_python(spec.name) for spec in signature.outputs)
    return join_lines(
        ["from concurrent.futures import ThreadPoolExecutor", ""] if several else [],
        "import torch",
        "",
        f"torch.set_num_threads({settings.threads})",
        f"torch.backends.mkldnn.set_flags({bool(chosen['onednn'])})" if "onednn" in chosen else [],
        f"torch.set_flush_denormal({bool(chosen['denormals-as-zero'])})" if "denormals-as-zero" in chosen else [],
        ["import torch._inductor.config", f"torch._inductor.config.freezing = {bool(chosen['freezing'])}"]
        if "freezing" in chosen
        else [],
        f"program = torch.export.load({quote_python(model_file)}).module(check_guards=False).requires_grad_(False)",
        "program = program.to(memory_format=torch.channels_last)" if channels_last else [],
        "program = torch.compile(program)" if compiled else [],
        "",
        "",
        "@torch.inference_mode()",
        "def infer(inputs):",
        "    return program(*inputs)",
        "",
        "",
        "inputs = [",
        inputs,
        "]",
        f"names = [{outputs}]",
        _run(settings.requests),
    )


def _run(requests: int) -> list[str]:
    if requests == 1:
        return ["outputs = dict(zip(names, infer(inputs)))"]
    return [
        "infer(inputs)",
        f"with ThreadPoolExecutor({requests}) as callers:  # one program serves several callers at a time",
        f"    results = list(callers.map(infer, [inputs] * {requests}))",
        "outputs = dict(zip(names, results[0]))",
    ]
