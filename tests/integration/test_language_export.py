"""Language models are exported as transformers computes them, whatever their kind."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from language_models import make_language_folder

from modelwright.core.errors import BadInputError
from modelwright.core.records.language import load_language
from modelwright.exporters.language import export_language


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

    again: list[str] = []
    assert export_language(folder, out, progress=again.append) == model
    assert lines
    assert not again
