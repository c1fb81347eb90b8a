"""`qat`: training with the rounding of INT8 and below in every step; the scales that were trained are what runs.

torchao's PT2E puts quantizers where x86 kernels fuse them, which ONNX Runtime and OpenVINO do too; the program that
comes out holds explicit quantize and dequantize operators, and its weights as whole numbers.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

from modelwright.compression.network import Network
from modelwright.compression.settings import BITS
from modelwright.compression.step import Step
from modelwright.core.errors import BadInputError, ModelwrightError, ToolchainMissingError
from modelwright.exporters.torch.export import capture
from modelwright.exporters.torch.source import TorchSource, import_torch

_CALIBRATED_BATCHES = 16
_OBSERVED_SHARE = 2 / 3
"""Of the epochs, in which ranges still follow the data; then scales stay, and weights settle around them."""

_LEAST_SCALE = 2**-12


class _Vendor(NamedTuple):
    """The parts of torchao."""

    pt2e: Any
    steps: Any
    x86: Any


class QuantizationAwareTraining(Step):
    """Trains through fake quantizers: per channel and symmetric for weights, per tensor for activations."""

    lr = 1e-4

    def prepare(self, network: Network) -> None:
        vendor = self._vendor = _import_torchao()
        module = _capture_for_training(network)
        quantizer = vendor.x86.X86InductorQuantizer()
        quantizer.set_global(self._make_config(vendor))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own parts to each other
                module = vendor.steps.prepare_qat_pt2e(module, quantizer)
        except Exception as error:  # a vendor's pass can raise anything
            raise BadInputError(
                f"{network.name} cannot be prepared for training with quantization: {error}",
                hint="leave qat away, and let the INT8 targets quantize it",
            ) from error
        vendor.pt2e.allow_exported_model_train_eval(module)
        self._observes = True
        self._own_train = module.train
        module.train = self._set_training  # observers must not see what is evaluated
        network.module, network.is_program = module, False
        self._module = module
        count = sum(isinstance(each, vendor.pt2e.FakeQuantizeBase) for each in module.modules())
        if not count:
            raise BadInputError(
                f"{network.name} has no convolution or linear layer that can be quantized",
                hint="leave qat away: there is nothing that integers would make faster",
            )
        self._calibrate(network)
        self.notes.append(
            f"{count} quantizers, {self.task.settings.bits}; the targets run the scales that were trained"
        )

    def begin_epoch(self, network: Network, epoch: int) -> None:
        del network
        self._observes = epoch <= max(1, round(_OBSERVED_SHARE * self.task.settings.epochs))

    def convert(self, network: Network) -> None:
        network.set_training(training=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.module = self._vendor.steps.convert_pt2e(network.module)
        network.is_program = True
        _clamp_narrow(network.module)
        _drop_unused(network.module)
        weight_bits = self._read_bits()[0]
        if weight_bits < 8:
            count = sum(value.numel() for value in network.copy_state().values() if value.dtype == import_torch().int8)
            self.notes.append(
                f"weights have {weight_bits} bits and are kept in 8: kernels of convolutions take no fewer here; "
                f"packed they would be {count * weight_bits / 8e6:.3f} MB (counted, not stored)"
            )

    def describe(self) -> dict[str, str]:
        form = "symmetric" if self.task.settings.symmetric else "affine"
        return {
            "bits": self.task.settings.bits,
            "activations": f"per tensor, {form}",
            "weights": "per channel, symmetric",
        }

    def _set_training(self, mode: bool = True) -> Any:
        self._module.apply(
            self._vendor.pt2e.enable_observer if mode and self._observes else self._vendor.pt2e.disable_observer
        )
        return self._own_train(mode)

    def _calibrate(self, network: Network) -> None:
        """Lets the quantizers see training data, as quantization after training would."""
        torch = import_torch()
        network.set_training(training=False)
        self._module.apply(self._vendor.pt2e.enable_observer)
        with torch.no_grad():
            batches = self.task.train.batches(self.task.chosen, self.task.settings.batch)
            for _, batch in zip(range(_CALIBRATED_BATCHES), batches, strict=False):
                network(batch)
        network.set_training(training=False)

    def _read_bits(self) -> tuple[int, int]:
        match = BITS.fullmatch(self.task.settings.bits)
        assert match is not None
        return int(match[1]), int(match[2])

    def _make_config(self, vendor: _Vendor) -> Any:
        """Returns the vendor's configuration with the widths that were asked for."""
        torch = import_torch()
        weight_bits, activation_bits = self._read_bits()
        config = vendor.x86.get_default_x86_inductor_quantization_config(is_qat=True)
        # Not the vendor's fused fake quantizers: these compute other scales of narrow weights than the conversion does.
        weights = replace(
            config.weight,
            quant_min=1 - 2 ** (weight_bits - 1),
            quant_max=2 ** (weight_bits - 1) - 1,
            observer_or_fake_quant_ctr=vendor.pt2e.FakeQuantize.with_args(
                observer=vendor.pt2e.MovingAveragePerChannelMinMaxObserver, eps=_LEAST_SCALE
            ),
        )
        activations = replace(
            config.input_activation,
            quant_min=0,
            quant_max=2**activation_bits - 1,
            observer_or_fake_quant_ctr=vendor.pt2e.FakeQuantize.with_args(
                observer=vendor.pt2e.MovingAverageMinMaxObserver, eps=_LEAST_SCALE
            ),
        )
        if self.task.settings.symmetric:
            half = 2 ** (activation_bits - 1)
            activations = replace(
                activations, dtype=torch.int8, quant_min=-half, quant_max=half - 1, qscheme=torch.per_tensor_symmetric
            )
        return replace(config, input_activation=activations, output_activation=activations, weight=weights)


def _import_torchao() -> _Vendor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts to each other
            from torchao.quantization import pt2e
            from torchao.quantization.pt2e import quantize_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"Python package {error.name} is not installed; qat needs it", hint="pip install 'modelwright[compress]'"
        ) from error
    return _Vendor(pt2e, quantize_pt2e, x86_inductor_quantizer)


def _capture_for_training(network: Network) -> Any:
    """Returns the module as a graph in the mode of training, with a batch of any size."""
    if network.is_program:
        return network.module
    state = network.copy_state()
    values = list(network.examples.items())
    network.set_training(training=True)
    source = TorchSource(
        name=network.name,
        module=network.module,
        args=tuple(value for _, value in values[: network.positional]),
        kwargs=dict(values[network.positional :]),
    )
    try:
        return capture(source, dynamic=True).program.module()
    except ModelwrightError as error:
        raise BadInputError(
            f"{network.name} cannot be captured for training with a batch of any size: {error.message}",
            hint=error.hint,
            detail=error.detail,
        ) from error
    finally:
        network.module.load_state_dict(state)  # capturing runs it once, and statistics of batches move


def _clamp_narrow(module: Any) -> None:
    """Clamps what is quantized to fewer values than its type holds: ONNX knows the range of the type alone."""
    torch = import_torch()
    graph, clamp = module.graph, torch.ops.aten.clamp.default
    for node in list(graph.nodes):
        if node.target is not torch.ops.quantized_decomposed.quantize_per_tensor.default:
            continue
        value, scale, zero, least, most, dtype = node.args
        limits = torch.iinfo(dtype)
        if (least, most) == (limits.min, limits.max):
            continue
        with graph.inserting_before(node):
            clamped = graph.call_function(clamp, (value, (least - zero) * scale, (most - zero) * scale))
        node.args = (clamped, scale, zero, limits.min, limits.max, dtype)
    graph.lint()
    module.recompile()


def _drop_unused(module: Any) -> None:
    """Drops tensors that nothing reads any more: the weights in floats."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name in module.state_dict() if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)
