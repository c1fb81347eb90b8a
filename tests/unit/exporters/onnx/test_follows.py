"""How far an exported model may be from its source."""

from __future__ import annotations

from pathlib import Path

import models
import onnx
import pytest

from modelwright.exporters.onnx.follows import TOLERANCE, widen_tolerance


def test_a_model_that_rounds_its_activations_may_differ_by_a_step_and_others_may_not(tmp_path: Path) -> None:
    model = models.make_cnn(tmp_path / "model.onnx")
    assert widen_tolerance(model, TOLERANCE) == TOLERANCE
    onnx.save(models.quantize_by_pairs(model), tmp_path / "rounded.onnx")
    assert widen_tolerance(tmp_path / "rounded.onnx", TOLERANCE) == pytest.approx(5 * TOLERANCE)
