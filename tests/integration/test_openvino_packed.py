"""Matrices in blocks compute in OpenVINO what their integers stand for, and are not unpacked when a model runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_models import make_language_folder

from modelwright.core.records.language import load_language
from modelwright.exporters.language import export_language
from modelwright.targets.language.grids import BlockFormat, Grids, NearestGrids
from modelwright.targets.language.portable import PortableModel

pytest.importorskip("openvino")

from modelwright.targets.openvino.language.convert import convert_language
from modelwright.targets.openvino.language.generator import OpenvinoGenerator
from modelwright.targets.openvino.language.packed import find_products, pack_matrices
from modelwright.targets.openvino.language.widths import read_widths
from modelwright.targets.openvino.session import import_openvino

pytestmark = pytest.mark.slow
TOKENS = np.arange(3, 27, dtype=np.int64)[None] * 7 % 250


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make_language_folder(folder / "source", request.param)
    export_language(folder / "source", folder / "model")
    return folder / "model"


def choose_formats(portable: PortableModel, bits: int, size: int) -> dict[str, BlockFormat]:
    """A matrix that does not divide into blocks, and a table of tokens, have a scale a column."""
    return {
        name: BlockFormat(bits=bits, size=size, symmetric=bits == 8)
        if layer.rows % size == 0 and not layer.is_turned
        else BlockFormat(bits=8, size=layer.rows, symmetric=False)
        for name, layer in portable.linear_layers.items()
    }


def restore_matrices(openvino: Any, model: Any, grids: Grids) -> None:
    for name, node in find_products(model, grids.model).items():
        matrix = np.ascontiguousarray(grids.round_layer(grids.model.linear_layers[name]).restore().T)
        constant = openvino.opset15.constant(matrix)
        for reader in list(node.input_value(1).get_target_inputs()):
            reader.replace_source_output(constant.output(0))


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_matrices_are_what_their_integers_stand_for(exported: Path, bits: int) -> None:
    openvino = import_openvino()
    portable, record = PortableModel(exported), load_language(exported)
    grids = NearestGrids(portable, choose_formats(portable, bits, 16))
    scores, types = [], []
    for change in (pack_matrices, restore_matrices):
        model = convert_language(openvino, exported)
        change(openvino, model, grids)
        compiled = openvino.compile_model(
            model, "CPU", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_PRECISION_HINT": "f32"}
        )
        generator = OpenvinoGenerator(compiled, {}, record)
        scores.append(np.array(generator.score(TOKENS)))
        types.append(Counter(generator.describe_execution()["operators"]))
        stored = sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")
        if change is pack_matrices:
            packed = stored
            widths = read_widths(model, portable)
    assert widths == {name: found.bits for name, found in grids.formats.items()}
    # Scales are stored in 16 bits.
    assert np.linalg.norm(scores[0] - scores[1]) < 2e-3 * np.linalg.norm(scores[1])
    assert types[1]["FullyConnected"] == len(portable.linear_layers)
    # Queries, keys and values are one product: its columns are split. Those with a bias stay apart.
    joined = 2 * record.layers if exported.parent.name.startswith("llama") else 0
    assert types[0]["FullyConnected"] == len(portable.linear_layers) - joined
    assert not types[0].keys() - types[1].keys() - {"Convert", "Split"}, "nothing is unpacked when the model runs"
    assert types[0]["ScaledDotProductAttention"] == types[1]["ScaledDotProductAttention"] == record.layers
    assert packed < 0.6 * stored
