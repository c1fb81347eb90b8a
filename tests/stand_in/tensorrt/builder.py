"""Builders, with their profiles of shapes and caches of timings, and the engines that they write."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from .network import INetworkDefinition
from .types import (
    MAGIC,
    VERSION,
    WORDS,
    BuilderFlag,
    HardwareCompatibilityLevel,
    ILogger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    find_gpu_name,
    is_failing,
    scratch_bytes,
    start_cuda,
)


class IOptimizationProfile:
    def __init__(self) -> None:
        self.ranges: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - the vendor's names
        self.ranges[input] = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    def __init__(self, version: str, gpu: str, entries: dict[str, float]) -> None:
        self.version, self.gpu, self.entries = version, gpu, entries

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache.version != self.version or (input_cache.gpu != self.gpu and not ignore_mismatch):
            return False
        self.entries = input_cache.entries | self.entries
        return True

    def serialize(self) -> bytes:
        return json.dumps({"version": self.version, "gpu": self.gpu, "entries": self.entries}, sort_keys=True).encode()


class IBuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(pool, 2**36)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if any(
            not low <= middle <= high
            for shapes in profile.ranges.values()
            for low, middle, high in zip(*shapes, strict=True)
        ):
            self._logger.log(ILogger.Severity.ERROR, "Error Code 4: API Usage Error (invalid optimization profile)")
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache(VERSION, find_gpu_name(), {})
        stored = json.loads(data)
        return ITimingCache(stored["version"], stored["gpu"], stored["entries"])

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if (cache.version, cache.gpu) != (VERSION, find_gpu_name()) and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._cuda = start_cuda(logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        _meet_other_builds()
        if is_failing("build", self._logger):
            return None
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        dynamic = [tensor.name for tensor in inputs if -1 in tensor.shape]
        if dynamic and not config.profiles:
            self._logger.log(
                ILogger.Severity.ERROR,
                "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, "
                "but no optimization profile has been defined. In validate at optimizer/api/network.cpp:4023)",
            )
            return None
        if config.cache is not None:
            for node in network.model.graph.node:
                config.cache.entries[hashlib.sha256(node.SerializeToString()).hexdigest()[:16]] = 0.01
        weights = sum(len(tensor.raw_data) for tensor in network.model.graph.initializer)
        self._logger.log(ILogger.Severity.INFO, f"Total Activation Memory: {scratch_bytes()} bytes")
        self._logger.log(ILogger.Severity.INFO, f"Total Weights Memory: {weights} bytes")
        header = {
            "version": VERSION,
            "gpu": self._cuda.name,
            "capability": self._cuda.capability,
            "strongly_typed": bool(network.flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)),
            "tf32": config.get_flag(BuilderFlag.TF32),
            "version_compatible": config.get_flag(BuilderFlag.VERSION_COMPATIBLE),
            "hardware": config.hardware_compatibility_level.name,
            "level": config.builder_optimization_level,
            "workspace": config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            "ranges": config.profiles[0].ranges if config.profiles else {},
            "layers": _list_layers(network.model)
            if config.profiling_verbosity == ProfilingVerbosity.DETAILED
            else [node.name for node in network.model.graph.node],
        }
        return MAGIC + json.dumps(header).encode() + b"\n" + network.model.SerializeToString()


def _meet_other_builds() -> None:
    folder, _, count = os.environ.get("STAND_IN_BARRIER", "").rpartition(":")
    if not folder:
        return
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < int(count):
        assert time.monotonic() < deadline, "the other builds did not come"
        time.sleep(0.01)


def _list_layers(model: Any) -> list[dict[str, Any]]:
    """Lists layers as the inspector of TensorRT 10 does: Q/DQ pairs are part of the layer behind them."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    producers = {name: node for node in inferred.node for name in node.output}
    forced = os.environ.get("STAND_IN_PRECISION")
    layers = []
    for node in inferred.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant"):
            continue
        inputs = []
        for name in node.input[:2]:
            producer = producers.get(name)
            dequantized = producer is not None and producer.op_type == "DequantizeLinear"
            word = forced or ("Int8" if dequantized else WORDS.get(types.get(name, 1), "Int32"))
            inputs.append({"Name": name, "Dimensions": [], "Format/Datatype": f"Row major linear {word}"})
        layers.append(
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": inputs,
                "Outputs": [{"Name": node.output[0], "Dimensions": [], "Format/Datatype": "Float"}],
                "TacticName": "stand_in",
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
        )
    return layers
