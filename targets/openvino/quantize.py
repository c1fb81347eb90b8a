"""What OpenVINO's INT8 target gives to the search: candidates by NNCF, run as they will ship.

NNCF's own accuracy control only logs when it misses its limit, so the guard is the search's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.plan import ExecutedPlan
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Array, BuildRequest, RunSettings
from modelwright.targets.openvino.branches import (
    BRANCHES_HINT,
    IdleBranches,
    iterate_operators,
    set_idle_branches_apart,
)
from modelwright.targets.openvino.bypass import (
    bypass_layers,
    find_quantized,
    is_activation_quantizer,
    is_rounded,
    measure_noise,
)
from modelwright.targets.openvino.candidates import (
    NO_INT8_HINT,
    OpenvinoQuantizer,
    RunnableModel,
    choose_float_precision,
)
from modelwright.targets.openvino.clamps import drop_clamps
from modelwright.targets.openvino.convert import convert_model
from modelwright.targets.openvino.recipes import CONVOLUTIONAL, DEFAULT, TRANSFORMER, NncfCandidate
from modelwright.targets.openvino.session import WITHOUT_FUSION, OpenvinoSession, find_ports, fit_types, silence_vendor
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.rounded import find_rounded_model
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.search import Found, search
from modelwright.targets.quantization.twins import NOISE_SAMPLES

_JUDGED_SAMPLES = 64
_ACCURATE_EFFORT = 2.3
"""How much longer accurate bias correction took than the fast one, on ResNet-50."""
_KEPT_BYTES = 200_000_000
"""Of quantized models that are kept, so that layers can be put back in another one than the last."""
_RECURRENT = re.compile("(LSTM|GRU|RNN|AUGRU)(Cell|Sequence)$")


def quantize_model(
    quantizer: NncfQuantizer, request: BuildRequest
) -> tuple[Any, dict[str, Any], tuple[str, ...], ExecutedPlan | None]:
    """Quantizes a converted model.

    Args:
        quantizer: Of that model.
        request: Whose samples judge.

    Returns:
        The quantized OpenVINO model, the recipe for the manifest, notes for the user, and what became of the plan.

    Raises:
        BuildFailedError: NNCF fails on this model, or OpenVINO cannot run what it makes.
    """
    judge = Judge.of_request(request)
    found = search(quantizer, judge, request.progress)
    hint, reason, figures = choose_float_precision(quantizer, judge, found, request)
    described = found.describe()
    recurrent = [{"layer": name, "reason": "recurrent"} for name in found.candidate.float_layers]
    described["float_layers"] = [*recurrent, *described["float_layers"]]
    recipe = {
        "method": "NNCF post-training quantization",
        "model_kind": "transformer" if quantizer.is_transformer else "other",
        "overflow_fix": quantizer.overflow_fix,
        "calibration_count": quantizer.calibration.count,
        "search": described,
        "idle_branches": list(quantizer.idle.branches),
        "compile_options": dict(found.model.options),
        "inference_precision": hint,
        "inference_precision_reason": reason,
        "inference_precision_figures": figures,
        "dropped_clamps": drop_clamps(found.model.model),
    }
    plan = quantizer.describe_plan(found.model, found.kept)
    return found.model.model, recipe, tuple(_explain(found, quantizer.idle, plan)), plan


def _explain(found: Found[NncfCandidate, RunnableModel], idle: IdleBranches, plan: ExecutedPlan | None) -> list[str]:
    """Returns what the user has to know of the result."""
    notes = found.notes()
    if idle.branches:
        notes.append(f"in float, because no calibration sample takes it: {', '.join(idle.branches)}")
    if found.candidate.float_layers:
        notes.append(f"recurrent layers stay in float: {', '.join(found.candidate.float_layers)}")
    if found.model.options.items() >= WITHOUT_FUSION.items():
        notes.append("OpenVINO's fused kernels compute this model wrongly: they are switched off")
    if plan is None and not any(is_activation_quantizer(node) for node in iterate_operators(found.model.model)):
        notes.append("NNCF found nothing to quantize: this artifact runs in float")
    return notes


class NncfQuantizer(OpenvinoQuantizer[NncfCandidate]):
    """Quantizes by NNCF, and runs what it makes in OpenVINO.

    Attributes:
        shares_weight_scales: Whether each weight has one scale, and not one a channel.
    """

    shares_weight_scales = False

    def __init__(self, openvino: Any, nncf: Any, model: Any, request: BuildRequest) -> None:
        assert request.calibration is not None, "the record says that calibration samples are needed"
        self.calibration: SampleSet = request.calibration
        super().__init__(openvino, model, request)
        self._nncf = nncf
        self._whole: dict[NncfCandidate, Any] = {}
        self._ever_quantized: set[str] | None = None
        weight_bytes = sum(int(op.data.nbytes) for op in model.get_ops() if op.get_type_name() == "Constant")
        self._kept_models = max(1, _KEPT_BYTES // max(1, weight_bytes // 4))
        self.is_transformer = has_attention(model)
        self.idle = set_idle_branches_apart(self._core, model, fit_types(model, self.calibration.feeds()))
        # Without a dot-product instruction, pairs of u8 x s8 products are added in 16 bits and can saturate: NNCF then
        # halves the weights' range.
        self.overflow_fix = "disable" if request.machine.sums_exactly else "enable"
        self._rounded: Any = None if self.idle.branches or self.is_transformer else self._convert_rounded()
        host = request.host or request.machine
        self._saturates_here = request.machine.sums_exactly and not host.sums_exactly

    def candidates(self) -> Sequence[Sequence[NncfCandidate]]:
        plain = TRANSFORMER if self.is_transformer else CONVOLUTIONAL
        recurrent = find_recurrent(self._model)
        known = [[each for each in map(self._fit, group) if each is not None] for group in plain]
        known = [group for group in known if group]
        spared = [[candidate.sparing(recurrent) for candidate in group] for group in known] if recurrent else []
        return [*known, *spared]

    def _fit(self, candidate: NncfCandidate) -> NncfCandidate | None:
        """Returns what NNCF can make of a candidate for this model; None where that is another one's, or nothing."""
        if candidate.rounded and self._rounded is None:
            return None
        # NNCF corrects no biases in a branch that no sample takes, and with the accurate method in none at all.
        if candidate.corrects_biases and self.idle.branches:
            return candidate.keeping_biases() if candidate == DEFAULT else None
        return candidate if candidate.fast_bias_correction or not self.idle.has_branches else None

    def _convert_rounded(self) -> Any | None:
        """Converts the copy of the model whose weights lie on 8-bit grids; None where NNCF would make other grids."""
        path = find_rounded_model(self._request) if self.overflow_fix == "disable" else None
        if path is None:
            return None
        try:
            rounded = convert_model(self._openvino, replace(self._request, model_path=path)).model
        except BuildFailedError as error:
            self._request.progress(f"the rounded weights are not used: {error.message}")
            return None
        if not copy_names(self._model, rounded):
            self._request.progress("the rounded weights are not used: OpenVINO makes another graph with them")
            return None
        return rounded

    def repeats(self, candidate: NncfCandidate) -> bool:
        # NNCF leaves some recurrent layers in float by itself: sparing those changes nothing.
        spared, seen = candidate.float_layers, self._ever_quantized
        return bool(spared) and seen is not None and seen.isdisjoint(spared)

    def effort(self, candidate: NncfCandidate) -> float:
        # Each is calibrated anew, in float, and an evaluation is of so many samples.
        calibrating = self.calibration.count / _JUDGED_SAMPLES
        return 1.0 + calibrating * (1.0 if candidate.fast_bias_correction else _ACCURATE_EFFORT)

    def base(self, best: NncfCandidate, *, as_fast: bool) -> NncfCandidate:  # noqa: ARG002 - biases take no time
        # Biases that make up for all rounding before them are wrong where some of it is gone.
        return best.with_fast_correction()

    def build(self, candidate: NncfCandidate, kept: Collection[str]) -> RunnableModel:
        # Calibrating anew for each choice of layers takes minutes, and gives what stays quantized the same ranges.
        if candidate not in self._whole:
            while len(self._whole) >= self._kept_models:
                del self._whole[next(iter(self._whole))]
            self._whole[candidate] = self._quantize(candidate)
            quantized = find_quantized(iterate_operators(self._whole[candidate]))
            self._ever_quantized = (self._ever_quantized or set()) | quantized
        whole = self._whole[candidate]
        return RunnableModel(model=bypass_layers(self._openvino, self._model, whole, kept) if kept else whole)

    def _quantize(self, candidate: NncfCandidate) -> Any:
        nncf = self._nncf
        from nncf.quantization import advanced_parameters as advanced
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        options: dict[str, Any] = {"overflow_fix": advanced.OverflowFix(self.overflow_fix)}
        if not candidate.corrects_biases:
            options["disable_bias_correction"] = True
        if candidate.min_max:
            options["activations_range_estimator_params"] = RangeEstimatorParametersSet.MINMAX
        if self.shares_weight_scales:
            options["weights_quantization_params"] = advanced.QuantizationParameters(per_channel=False)
        if candidate.smooth_quant_alpha is not None:
            options["smooth_quant_alphas"] = advanced.AdvancedSmoothQuantParameters(matmul=candidate.smooth_quant_alpha)
        ignored = [*candidate.float_layers, *self.idle.layers]
        try:
            with silence_vendor():
                return nncf.quantize(
                    (self._rounded if candidate.rounded else self._model).clone(),
                    nncf.Dataset(_SampleStream(self.calibration, self._model)),
                    preset=None if candidate.preset is None else nncf.QuantizationPreset(candidate.preset),
                    target_device=nncf.TargetDevice.CPU,
                    subset_size=self.calibration.count,
                    fast_bias_correction=candidate.fast_bias_correction,
                    model_type=nncf.ModelType.TRANSFORMER if self.is_transformer else None,
                    # Some names are of nodes that NNCF itself put in: those are not in the float model.
                    ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
                    advanced_parameters=advanced.AdvancedQuantizationParameters(**options),
                )
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot quantize {self._request.model_path.name} ({candidate.name}): {find_cause(error)}",
                hint=BRANCHES_HINT if self.idle.has_branches else NO_INT8_HINT,
                detail=str(error),
            ) from error

    def describe_plan(self, model: RunnableModel, kept: Collection[str]) -> ExecutedPlan | None:  # noqa: ARG002
        """Returns what became of the plan of precisions, with some layers put back; None where there is none."""
        return None

    def other_ways(self, model: RunnableModel) -> Iterable[RunnableModel]:
        return [replace(model, options={**model.options, **WITHOUT_FUSION})]

    def time_layers(self, model: RunnableModel) -> LayerTimes | None:
        if not self._request.fits_host:
            return None
        feeds = next(self.calibration.feeds(1))
        settings = RunSettings(threads=1, profiled=True)
        session = OpenvinoSession(
            self._openvino, self._core, model.model, self._request.signature, settings, model.hint, model.options
        )
        session.run(feeds)
        return LayerTimes.of_profile(session.profile_operators(feeds))

    def as_shipped(self, model: Any) -> Any:
        return widen_weights(self._openvino, model) if self._saturates_here else model

    def works(self, model: RunnableModel) -> Mapping[str, LayerWork]:
        shaped = model.model.clone()
        feeds = next(self.calibration.feeds(1))
        ports = find_ports(shaped.inputs, self._request.signature.inputs)
        names = [spec.name for spec in self._request.signature.inputs]
        with contextlib.suppress(RuntimeError):  # one that cannot be reshaped counts as of size 1 where it is open
            shaped.reshape({port: feeds[name].shape for port, name in zip(ports, names, strict=True)})
        nodes = list(iterate_operators(shaped))
        layers = find_quantized(nodes)
        return {
            str(node.get_friendly_name()): _count_work(node) for node in nodes if node.get_friendly_name() in layers
        }

    def estimate_noise(self, candidate: NncfCandidate, model: RunnableModel) -> Mapping[str, float]:  # noqa: ARG002
        layers = set(self.costs(model))
        feeds = fit_types(self._model, self.calibration.feeds(NOISE_SAMPLES))
        return measure_noise(self._openvino, self._core, self._model, model.model, layers, feeds)

    def build_for_ranking(
        self,
        candidate: NncfCandidate,  # noqa: ARG002
        model: RunnableModel,
        quantized: Collection[str],
    ) -> RunnableModel:
        layers = [name for name in self.costs(model) if name not in quantized]
        changed = bypass_layers(self._openvino, self._model, model.model, layers)
        # What is ranked is rounding, not the kernels that are fused around it.
        return RunnableModel(model=changed, options=WITHOUT_FUSION)


def _count_work(node: Any) -> LayerWork:
    """Returns what a layer multiplies, reads and makes in one inference."""
    *sizes, result = (_list_sizes(value) for value in (*node.input_values(), node.output(0)))
    kind = node.get_type_name()
    each = 0.0
    if kind in ("Convolution", "GroupConvolution"):
        each = np.prod(sizes[1]) / result[1]
    elif kind == "MatMul":
        each = sizes[0][-2 if node.get_attributes()["transpose_a"] else -1]
    elif _RECURRENT.match(kind):
        each = sum(np.prod(size) for size in sizes[-3:]) / result[-1]
    # Of a table only what is looked up is read.
    read = [size for size, value in zip(sizes, node.input_values(), strict=True) if is_rounded(value) and each]
    values = float(np.prod(result))
    return LayerWork(
        products=values * float(each),
        weights=float(sum(np.prod(size) for size in read)),
        values=values,
        passes_integers=True,
    )


def _list_sizes(value: Any) -> list[int]:
    return [max(int(size), 1) for size in value.get_partial_shape().get_min_shape()]


class _SampleStream:
    """Hands samples to NNCF one at a time, as often as it asks."""

    def __init__(self, samples: SampleSet, model: Any) -> None:
        self._samples, self._model = samples, model

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return fit_types(self._model, self._samples.feeds())

    def __len__(self) -> int:
        return self._samples.count


def widen_weights(openvino: Any, model: Any) -> Any:
    """Returns a copy whose 8-bit weights are float constants of the same values: OpenVINO then multiplies in float.

    For a host that saturates sums of 8-bit products which the machine that the model is for sums exactly.
    """
    widened = model.clone()
    for node in widened.get_ordered_ops():
        source = node.input_value(0).get_node() if node.get_type_name() == "Convert" else None
        if source is not None and source.get_type_name() == "Constant":
            constant = openvino.op.Constant(source.data.astype(np.float32))
            for target in node.output(0).get_target_inputs():
                target.replace_source_output(constant.output(0))
    return widened


def copy_names(original: Any, model: Any) -> bool:
    """Gives a graph's operators the names of those of another with the same operators, by which layers are found.

    OpenVINO counts on where it makes up a name itself, so that two conversions of one graph differ in some.

    Returns:
        Whether the two are the same but for their constants; names are given only then.
    """
    pairs = list(zip(original.get_ordered_ops(), model.get_ordered_ops(), strict=False))
    if len(original.get_ops()) != len(model.get_ops()):
        return False
    if any(before.get_type_name() != after.get_type_name() for before, after in pairs):
        return False
    for before, after in pairs:
        after.set_friendly_name(before.get_friendly_name())
    return True


def has_attention(model: Any) -> bool:
    """Whether the graph attends: a fused attention operator, or a MatMul of what a Softmax made."""
    return any(
        node.get_type_name() == "ScaledDotProductAttention"
        or (
            node.get_type_name() == "MatMul"
            and any(value.get_node().get_type_name() == "Softmax" for value in node.input_values())
        )
        for node in model.get_ops()
    )


def find_recurrent(model: Any) -> tuple[str, ...]:
    """Returns the names of the recurrent layers."""
    return tuple(sorted(str(n.get_friendly_name()) for n in model.get_ops() if _RECURRENT.match(n.get_type_name())))
