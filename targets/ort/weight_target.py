"""ONNX Runtime on the CPU with weights of 8 or 4 bits: a fraction of the memory, arithmetic close to float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, TargetRecord
from modelwright.targets.graphs.files import save_model
from modelwright.targets.graphs.run import open_file
from modelwright.targets.ort.refusal import explain_inner, refuse_unquantizable
from modelwright.targets.ort.settings import SETTINGS
from modelwright.targets.ort.target import MODEL_FILE, OrtTarget, explain_preparation
from modelwright.targets.ort.tied import explain_tied
from modelwright.targets.ort.weights import WeightQuantizer
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.own_scales import read_own_scales, refuse_second_quantization
from modelwright.targets.quantization.prepare import prepare_model
from modelwright.targets.quantization.search import describe_limits, search
from modelwright.targets.readiness import package_versions


def _make_record(bits: int) -> TargetRecord:
    return TargetRecord(
        name=f"ort-int{bits}-weights",
        runtime="ort",
        precision=f"int{bits}-weights",
        title=f"ONNX Runtime INT{bits} weights",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        recipe_version=2,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime>=1.22"},
        run_packages={"onnxruntime": "onnxruntime>=1.22"},
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
        named_only=True,
        has_profiler=True,
    )


class _WeightTarget(OrtTarget):
    bits: ClassVar[int]

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:  # noqa: ARG002
        return {"search": describe_limits()}

    def build(self, request: BuildRequest) -> BuildResult:
        """Stores matrices in blocks and lookup tables in 8 bits; see `Target.build`."""
        own = read_own_scales(request)
        if own is not None:
            raise refuse_second_quantization(self.record.name, own, "ort-int8 and ort-fp32 run it as it is")
        model, prepared = prepare_model(request)
        quantizer = WeightQuantizer(request, model, self.bits)
        if not quantizer.has_layers:
            raise refuse_unquantizable(model, self.record.name, "MatMul, Gemm or large Gather", None)
        found = search(quantizer, Judge.of_request(request), request.progress)
        path = request.directory / MODEL_FILE
        save_model(found.model, path)
        open_file(path, RunSettings(), BuildFailedError)
        notes = [*explain_preparation(prepared), *explain_tied(model), *explain_inner(model)]
        if any(node.op_type == "Conv" for node in model.graph.node):
            notes.append("convolutions stay in float: there is no kernel for their weights in blocks")
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={"method": "weights in blocks", **prepared, "search": found.describe()},
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime", "numpy"),
            notes=[*found.notes(quantizer.explain_kept(found.kept)), *notes],
        )


class OrtInt8Weights(_WeightTarget):
    """Weights of 8 bits."""

    bits = 8
    record: ClassVar[TargetRecord] = _make_record(8)


class OrtInt4Weights(_WeightTarget):
    """Weights of 4 bits; lookup tables, and matrices that 4 bits ruin, have 8."""

    bits = 4
    record: ClassVar[TargetRecord] = _make_record(4)
