"""Programs that targets for language models write are Python, and say what the artifact is run with."""

from __future__ import annotations

import ast

import pytest

from modelwright.core.records.language import LanguageModel, LanguageSource
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings

RECORD = LanguageModel(
    architecture="LlamaForCausalLM",
    kind="llama",
    layers=3,
    hidden_size=32,
    intermediate_size=48,
    attention_heads=4,
    kv_heads=2,
    head_dim=8,
    vocab_size=320,
    context_length=128,
    sliding_window=None,
    tied_embeddings=True,
    bos_token_id=None,
    eos_token_ids=(257, 2),
    pad_token_id=None,
    num_parameters=1,
    opset=23,
    source=LanguageSource(kind="folder", path="tiny", sha256="0" * 64, files={}, weights_dtype="float32"),
    files={},
    tokenizer_files={},
    size_bytes=1,
    verification=None,
    verification_reason="not compared",
    notes=(),
    versions={},
)


def write(name: str, recipe: dict[str, object]) -> str:
    text = get_target(name).write_snippet("python", "openvino_model.xml", recipe, RECORD, RunSettings(threads=3))
    assert text is not None
    ast.parse(text)
    return text


def test_openvino_is_set_as_the_recipe_says() -> None:
    text = write("openvino-bf16", {"compile_options": {"KV_CACHE_PRECISION": "u8"}})
    assert '"KV_CACHE_PRECISION": "u8"' in text
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in text
    assert '"INFERENCE_NUM_THREADS": 3' in text
    assert "ends = {257, 2}" in text or "ends = {2, 257}" in text


def test_pytorch_runs_in_the_precision_of_the_artifact() -> None:
    text = write("torch-bf16", {})
    assert "dtype=torch.bfloat16" in text
    assert "torch.set_num_threads(3)" in text


@pytest.mark.parametrize(
    ("name", "call"), [("ort-int8-weights", "Ort::Session session"), ("openvino-fp32", "ov::Core")]
)
def test_programs_in_cpp_end_where_the_model_ends(name: str, call: str) -> None:
    text = get_target(name).write_snippet("cpp", 'a"b.xml', {}, RECORD, RunSettings(threads=3))
    assert text is not None
    assert call in text
    assert "ends{257, 2}" in text
    assert '"a\\"b.xml"' in text
    assert text.count("{") == text.count("}")


def test_pytorch_has_no_program_in_cpp() -> None:
    for name in ("torch-fp32", "torch-int8-dynamic"):
        assert get_target(name).write_snippet("cpp", "m", {}, RECORD, RunSettings()) is None
    assert "quantized.dynamic import Linear" in write("torch-int8-dynamic", {})
