"""From ONNX to a TensorRT engine: parsing, configuring, building, loading.

Written against the Python API that TensorRT 10.12 to 11 and TensorRT for RTX 1.7 share. Everything here runs in a child
process: without CUDA, TensorRT's objects come back as null, and some of its calls then crash.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.core.records.codec import encode
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature
from modelwright.targets.tensorrt.flavours import Flavour
from modelwright.targets.tensorrt.layers import Layer, parse_inspector, parse_log
from modelwright.targets.tensorrt.refusals import (
    Refusal,
    VendorLog,
    explain_parser_errors,
    explain_refusal,
    make_logger,
)
from modelwright.targets.tensorrt.timing_cache import TimingCache

DTYPES: Mapping[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's `DataType` -> numpy dtype, of those that can be an input or output here."""

_MB = 10**6


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How an engine is to be built.

    Attributes:
        compute_capabilities: To build for, of a flavour that can be told; empty otherwise.
        shapes: Input name -> range.
        workspace_mb: Limit of scratch memory; None for the vendor's.
        optimization_level: 0 to 5.
        tf32: Whether FP32 layers may use TF32.
        version_compatible: Whether later versions are to run it.
        hardware_compatible: `none`, `same-compute-capability` or `ampere-plus`.
    """

    compute_capabilities: tuple[str, ...]
    shapes: Mapping[str, ShapeRange]
    workspace_mb: int | None = None
    optimization_level: int = 3
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: str = "none"

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON form, for the recipe."""
        return {
            "compute_capabilities": list(self.compute_capabilities),
            "shapes": encode(self.shapes),
            "workspace_mb": self.workspace_mb,
            "optimization_level": self.optimization_level,
            "tf32": self.tf32,
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
        }


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """What a build made.

    Attributes:
        plan: The serialized engine, as a buffer.
        dynamic: Whether it has an optimization profile for a range of shapes.
        layers: Of the engine; empty where TensorRT did not list them.
        layers_source: Where they were read.
        memory_bytes: On the GPU, for weights and activations at the largest shapes; None when TensorRT did not say.
    """

    plan: Any
    dynamic: bool
    layers: tuple[Layer, ...]
    layers_source: str
    memory_bytes: int | None


def build_engine(
    trt: Any,
    flavour: Flavour,
    model_path: Path,
    signature: Signature,
    settings: EngineSettings,
    cache: TimingCache | None = None,
) -> BuiltEngine:
    """Parses an ONNX model and builds a strongly typed engine.

    Args:
        trt: The flavour's module.
        flavour: Which.
        model_path: The ONNX model; its types are the engine's.
        signature: That the engine has to have.
        settings: How.
        cache: Timings of earlier builds; None where there are none.

    Raises:
        BuildFailedError: The parser or the builder refused; names node, operator and the vendor's words.
        ToolchainMissingError: CUDA is not there, or too old.
    """
    logger, log = make_logger(trt)
    refuse = Refusal(flavour, log)
    builder = refuse.unless(lambda: trt.Builder(logger), "start its builder")
    network = refuse.unless(lambda: builder.create_network(_network_flags(trt)), "make a network")
    parser = refuse.unless(lambda: trt.OnnxParser(network, logger), "start its parser")
    if not parser.parse_from_file(str(model_path)):
        raise explain_parser_errors(flavour, parser, log)
    _require_ports(flavour, network, signature)
    config = refuse.unless(builder.create_builder_config, "configure a build")
    _configure(trt, config, settings, refuse)
    dynamic = _add_profile(builder, config, network, settings.shapes, refuse)
    if cache is not None:
        cache.attach(config)
    plan = refuse.unless(lambda: builder.build_serialized_network(network, config), "build the engine")
    if cache is not None:
        cache.save(config)
    memory_bytes = sum(log.memory_bytes.values()) if len(log.memory_bytes) == 2 else None
    layers, source = _list_layers(trt, flavour, plan, logger, log, runs_own_code=settings.version_compatible)
    return BuiltEngine(
        plan=plan, dynamic=dynamic, layers=tuple(layers), layers_source=source, memory_bytes=memory_bytes
    )


def _network_flags(trt: Any) -> int:
    """Returns the flags of a strongly typed network; from TensorRT 11 on there is no other kind."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def _require_ports(flavour: Flavour, network: Any, signature: Signature) -> None:
    """Checks that inputs and outputs are those of the signature, and of kinds that a session can feed.

    Raises:
        BuildFailedError: An input decides shapes, or a type or name is not the model's.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise BuildFailedError(
                f"{flavour.title}: the values of the input {tensor.name} decide shapes inside the network, so one "
                "engine would need a range of values for it",
                hint="export the model with that input as a constant",
            )
    for tensors, specs, what in ((inputs, signature.inputs, "input"), (outputs, signature.outputs, "output")):
        expected = {spec.name: spec.dtype for spec in specs}
        found = {tensor.name: DTYPES.get(tensor.dtype.name, tensor.dtype.name) for tensor in tensors}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise BuildFailedError(
                    f"{flavour.title}: the {what} {name} would be {found.get(name, 'missing')} in the engine; the "
                    f"model's signature says {expected.get(name, 'there is none')}",
                    hint="export the model with inputs and outputs that TensorRT takes: float32, float16, int32, "
                    "int64, int8, uint8 or bool",
                )


def _configure(trt: Any, config: Any, settings: EngineSettings, refuse: Refusal) -> None:
    flags = trt.BuilderFlag
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = settings.optimization_level
    # On by default, and then FP32 would not be FP32.
    (config.set_flag if settings.tf32 else config.clear_flag)(flags.TF32)
    if settings.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb * _MB)
    if settings.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if settings.compute_capabilities:
        _choose_capabilities(trt, config, settings.compute_capabilities, refuse)
    elif settings.hardware_compatible != "none":
        level = settings.hardware_compatible.replace("-", "_").upper()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)


def _choose_capabilities(trt: Any, config: Any, capabilities: Sequence[str], refuse: Refusal) -> None:
    """Tells an ahead-of-time build what it is for."""
    known = trt.ComputeCapability.__members__
    for capability in capabilities:
        if _enum_name(capability) not in known:
            names = sorted(name.removeprefix("SM") for name in known if name.startswith("SM"))
            raise BuildFailedError(
                f"this version of TensorRT for RTX does not build for compute capability {capability}",
                hint="it builds for " + ", ".join(f"{name[:-1]}.{name[-1]}" for name in sorted(names, key=int)),
            )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        choose = functools.partial(config.set_compute_capability, known[_enum_name(capability)], index)
        refuse.unless(choose, f"build for compute capability {capability}")


def _enum_name(capability: str) -> str:
    return f"SM{capability.replace('.', '')}"


def _add_profile(builder: Any, config: Any, network: Any, shapes: Mapping[str, ShapeRange], refuse: Refusal) -> bool:
    """Adds the optimization profile of a network with dynamic inputs; returns whether it has some."""
    dynamic = [
        tensor.name
        for tensor in (network.get_input(index) for index in range(network.num_inputs))
        if any(size < 0 for size in tensor.shape)
    ]
    if not dynamic:
        return False
    profile = refuse.unless(builder.create_optimization_profile, "make an optimization profile")
    for name in dynamic:
        shape = shapes[name]
        try:
            profile.set_shape(name, shape.minimum, shape.optimum, shape.maximum)
        except (RuntimeError, TypeError, ValueError) as error:
            raise BuildFailedError(
                f"TensorRT does not take the range {shape.describe()} of the input {name}",
                hint=f"give another: --shapes '{name}=MIN:OPT:MAX'",
                detail=str(error),
            ) from error
    # The index of the profile; an invalid one is -1.
    refuse.unless(lambda: config.add_optimization_profile(profile) >= 0, "use the ranges of shapes")
    return True


def _list_layers(
    trt: Any, flavour: Flavour, plan: Any, logger: Any, log: VendorLog, *, runs_own_code: bool
) -> tuple[list[Layer], str]:
    """Lists the layers of a built engine: by its inspector where there is a GPU, else by the builder's own table."""
    if not flavour.builds_without_gpu:
        engine = load_engine(trt, flavour, plan, logger, log, runs_own_code=runs_own_code)
        layers = inspect_layers(trt, engine)
        if layers:
            return layers, describe_inspector(trt, flavour)
    return parse_log(log.tables), f"table of layers that {flavour.title} {trt.__version__} logged while building"


def load_engine(
    trt: Any,
    flavour: Flavour,
    plan: Any,
    logger: Any,
    log: VendorLog,
    *,
    runs_own_code: bool = False,
    kind: type[ModelwrightError] = BuildFailedError,
) -> Any:
    """Deserialises an engine, which must be one whose hash was verified: an engine is code.

    Args:
        trt: The flavour's module.
        flavour: Which.
        plan: The bytes.
        logger: Of `make_logger`.
        log: What the logger collects.
        runs_own_code: Whether it is version-compatible: such a plan brings its own runtime.
        kind: The error to raise.

    Raises:
        ModelwrightError: Of that kind, with what TensorRT logged.
    """
    try:
        runtime = trt.Runtime(logger)
        if runs_own_code:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
    except (RuntimeError, TypeError, ValueError) as error:
        raise explain_refusal(flavour, log, "load the engine", kind) from error
    if engine is None:
        raise explain_refusal(flavour, log, "load the engine", kind)
    return engine


def inspect_layers(trt: Any, engine: Any) -> list[Layer]:
    """Reads an engine's layers from its inspector; empty where it was built without the details."""
    inspector = engine.create_engine_inspector()
    if inspector is None:
        return []
    return parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def describe_inspector(trt: Any, flavour: Flavour) -> str:
    """Returns how the inspector is named as a source."""
    return f"engine inspector of {flavour.title} {trt.__version__}"
