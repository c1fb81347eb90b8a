"""Language models are exported as transformers computes them, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from language_models import CONFIGS, make_language_folder, write_gguf

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.language import load_language
from modelwright.exporters.language import export_language
from modelwright.exporters.language.cases import make_cases
from modelwright.exporters.language.config import load_config
from modelwright.exporters.language.data_file import write_data
from modelwright.exporters.language.decoder import Decoder, Rope
from modelwright.exporters.language.follows import Graph, compare_with_reference, compute_answers, judge
from modelwright.exporters.language.graph import write_graph
from modelwright.exporters.language.kinds.table import KINDS
from modelwright.exporters.language.reference import compute_reference
from modelwright.exporters.language.safetensors_files import open_weights
from modelwright.exporters.language.worker import hash_source, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_folder(tmp_path_factory.mktemp("language") / "tiny", "llama")


@pytest.mark.slow
def test_a_folder_becomes_a_graph_that_answers_as_pytorch_does(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    out.mkdir()
    (out / "language.json").write_text("{}")
    with pytest.raises(BadInputError, match="holds another export"):
        export_language(folder, out)
    lines: list[str] = []
    model = export_language(folder, out, overwrite=True, progress=lines.append)
    assert model == load_language(out)
    assert model.tied_embeddings
    assert (model.layers, model.kv_heads, model.head_dim, model.context_length) == (3, 2, 8, 128)
    assert (model.bos_token_id, model.eos_token_ids, model.pad_token_id) == (256, (257,), 258)
    assert model.verification is not None
    assert len(model.verification.cases) == 5
    assert model.verification.equal_tokens == 32
    assert {"tokenizer.json", "config.json"} <= set(model.tokenizer_files)

    gguf = tmp_path / "tiny.gguf"
    other = export_language(write_gguf(folder, gguf), tmp_path / "from gguf")
    assert (other.source.kind, list(other.source.files)) == ("gguf", ["tiny.gguf"])
    assert other.files["model.onnx.data"] == model.files["model.onnx.data"]

    again: list[str] = []
    assert export_language(folder, out, progress=again.append) == model
    assert lines
    assert not again


def export_in_this_process(folder: Path, out: Path) -> dict[str, Any]:
    """Does what the children of an export do, without what they take to start."""
    out.mkdir()
    hash_source(str(folder))
    fields = write_model(str(folder), str(out), ignore)
    shape = {name: fields[name] for name in ("layers", "kv_heads", "head_dim", "vocab_size", "context_length")}
    answers = str(out / "answers.npz")
    compute_reference(str(folder), shape, answers, low_memory=False, progress=ignore)
    return {**fields, "verification": compare_with_reference(str(out), shape, answers, ignore)}


def change_attention(decoder: Decoder, **values: Any) -> Decoder:
    blocks = [replace(block, attention=replace(block.attention, **values)) for block in decoder.blocks]
    return replace(decoder, blocks=blocks)


def change_norms(decoder: Decoder, **values: Any) -> Decoder:
    return replace(decoder, final_norm=replace(decoder.final_norm, **values))


def change_activation(decoder: Decoder) -> Decoder:
    blocks = [replace(block, feed_forward=replace(block.feed_forward, activation="gelu")) for block in decoder.blocks]
    return replace(decoder, blocks=blocks)


def turn_faster(decoder: Decoder) -> Decoder:
    ropes = {
        name: Rope(frequencies=rope.frequencies * np.float32(1.001), scale=rope.scale)
        for name, rope in decoder.ropes.items()
    }
    return replace(decoder, ropes=ropes)


WRONG: dict[str, tuple[str, Callable[[Decoder], Decoder]]] = {
    "the scale of scores": ("llama", lambda decoder: change_attention(decoder, scale=0.36)),
    "a window of one more": ("mistral", lambda decoder: change_attention(decoder, window=10)),
    "a window that is forgotten": ("mistral", lambda decoder: change_attention(decoder, window=None)),
    "a limit of scores that is forgotten": ("gemma2", lambda decoder: change_attention(decoder, softcap=None)),
    "a limit of logits that is forgotten": ("gemma2", lambda decoder: replace(decoder, softcap=None)),
    "frequencies a thousandth higher": ("llama", turn_faster),
    "gains that are not above 1": ("gemma", lambda decoder: change_norms(decoder, from_one=False)),
    "another epsilon": ("llama", lambda decoder: change_norms(decoder, epsilon=1e-2)),
    "another activation": ("gemma", change_activation),
    "embeddings that are not scaled": ("gemma", lambda decoder: replace(decoder, embedding_scale=1.0)),
    "heads that are not normed": ("qwen3", lambda decoder: change_attention(decoder, key_norm=None)),
}
"""What a fault of a kind would look like -> the kind, and the decoder with the fault."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, int], str]]:
    """What transformers answers for a kind, computed once."""

    @cache
    def answer(kind: str) -> tuple[Path, dict[str, int], str]:
        folder = make_language_folder(tmp_path_factory.mktemp("language") / kind, kind)
        decoder = KINDS[kind](load_config(folder))
        attention = decoder.blocks[0].attention
        shape = {
            "layers": len(decoder.blocks),
            "kv_heads": attention.kv_heads,
            "head_dim": attention.head_dim,
            "vocab_size": decoder.vocab_size,
            "context_length": decoder.context_length,
        }
        path = str(folder / "answers.npz")
        compute_reference(str(folder), shape, path, low_memory=False, progress=ignore)
        return folder, shape, path

    return answer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRONG)
def test_a_decoder_that_is_described_wrongly_is_found(
    name: str, answers: Callable[[str], tuple[Path, dict[str, int], str]], tmp_path: Path
) -> None:
    kind, spoil = WRONG[name]
    folder, shape, path = answers(kind)
    for decoder, fails in ((KINDS[kind](load_config(folder)), False), (spoil(KINDS[kind](load_config(folder))), True)):
        model, weights = write_graph(decoder, "graph")
        write_data(model, weights, open_weights(folder), tmp_path / "model.onnx.data")
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(BuildFailedError, match="does not follow") if fails else nullcontext():
            compare_with_reference(str(tmp_path), shape, path, ignore)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_openvino_reads_the_same_graph(
    kind: str, answers: Callable[[str], tuple[Path, dict[str, int], str]], tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    folder, shape, path = answers(kind)
    write_model(str(folder), str(tmp_path), ignore)
    compiled = openvino.Core().compile_model(str(tmp_path / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        return {output.get_any_name(): value.copy() for output, value in compiled(feeds).items()}

    with np.load(path) as archive:
        reference = {name: archive[name] for name in archive.files}
    cases = make_cases(**shape)
    found = judge(compute_answers(Graph(run, cases), cases, reference["greedy"]), reference)
    assert found.worst is not None
    assert found.worst.relative_l2_error < 2e-5
    assert found.equal_tokens == 32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_become_the_same_numbers_in_32(kind: str, dtype: str, tmp_path: Path) -> None:
    folder = make_language_folder(tmp_path / "tiny", kind, dtype=dtype)
    found = export_in_this_process(folder, tmp_path / "exported")
    assert found["weights_dtype"] == dtype
    # The source computes with the rounded weights as float32: nothing but the order of sums differs.
    assert max(case["relative_l2_error"] for case in found["verification"]["cases"]) < 2e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_weights_that_are_read_module_by_module_answer_alike(
    kind: str, answers: Callable[[str], tuple[Path, dict[str, int], str]], tmp_path: Path
) -> None:
    folder, shape, path = answers(kind)
    streamed = tmp_path / "streamed.npz"
    compute_reference(str(folder), shape, str(streamed), low_memory=True, progress=ignore)
    with np.load(path) as whole, np.load(streamed) as part:
        for name in whole.files:
            np.testing.assert_allclose(part[name], whole[name], rtol=1e-5, atol=1e-5)


def ignore(_line: str) -> None:
    """Takes a line of progress."""


@pytest.mark.filterwarnings("ignore")  # of transformers'
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "llama" else pytest.mark.slow) for kind in sorted(CONFIGS)]
)
def test_each_kind_computes_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    folder = make_language_folder(tmp_path / "tiny", kind)
    found = export_in_this_process(folder, tmp_path / "exported")
    errors = {case["case"]: case["relative_l2_error"] for case in found["verification"]["cases"]}
    assert max(errors.values()) < 2e-5, errors
    assert found["verification"]["equal_tokens"] == 32
    assert found["kind"] == kind
    assert found["notes"] == []
    assert found["sliding_window"] == (None if kind in ("llama", "qwen3", "gpt2", "gemma") else 9)
