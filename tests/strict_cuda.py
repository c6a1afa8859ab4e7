"""As much of the module cupy.cuda, and of RawModule, as tensorlite asks for by name."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np

from tests.strict_memory import (
    TOTAL,
    MemoryPointer,
    MemoryPool,
    OutOfMemoryError,
    alive,
    alloc,
    alloc_pinned_memory,
    copy,
    limit,
    set_pinned_memory_allocator,
    using_allocator,
)
from tests.strict_streams import (
    CUDARuntimeError,
    Event,
    Graph,
    Stream,
    enqueue,
    get_current_stream,
    get_elapsed_time,
    refuse_while_capturing,
    streams,
)

PROPERTIES = {
    "name": b"strict device",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "totalGlobalMem": TOTAL,
    "sharedMemPerBlockOptin": 227 * 1024,
}


class Device:
    """cupy.cuda.Device: the only one."""

    id = 0
    compute_capability = "90"
    attributes = {
        "MultiProcessorCount": PROPERTIES["multiProcessorCount"],
        "MaxSharedMemoryPerBlockOptin": PROPERTIES["sharedMemPerBlockOptin"],
        "ComputeCapabilityMajor": 9,
        "ComputeCapabilityMinor": 0,
    }

    def __init__(self, device=0):
        if device != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        for stream in list(streams.values()):
            stream.synchronize()

    @property
    def mem_info(self) -> tuple[int, int]:
        return limit[0] - alive(), limit[0]


def memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
    copy(to, source, size, streams[stream])


def namespace() -> SimpleNamespace:
    """As much of the module cupy.cuda as tensorlite asks for by name."""
    return SimpleNamespace(
        Stream=Stream,
        Event=Event,
        Graph=Graph,
        Device=Device,
        MemoryPool=MemoryPool,
        MemoryPointer=MemoryPointer,
        alloc=alloc,
        alloc_pinned_memory=alloc_pinned_memory,
        set_pinned_memory_allocator=set_pinned_memory_allocator,
        get_current_stream=get_current_stream,
        get_elapsed_time=get_elapsed_time,
        is_available=lambda: True,
        using_allocator=using_allocator,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDevice=lambda: 0,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda device: PROPERTIES,
            memGetInfo=lambda: Device().mem_info,
            memcpyAsync=memcpy_async,
            deviceSynchronize=lambda: Device().synchronize(),
            runtimeGetVersion=lambda: 13000,
            driverGetVersion=lambda: 13000,
        ),
    )


# =================================================================================================
# Kernels
# =================================================================================================


class RawModule:
    """cupy.RawModule: CUDA source that the emulator compiles, and whose kernels are launched."""

    def __init__(self, **source):
        from tests import emulator

        refuse_while_capturing()
        self._module = emulator.RawModule(**source)

    def get_function(self, name: str):
        refuse_while_capturing()
        return Kernel(name, self._module.get_function(name))


class Kernel:
    """A function of a RawModule; a launch is work for the current stream."""

    def __init__(self, name: str, function):
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_function", function)

    def __getattr__(self, name):
        return getattr(self._function, name)

    def __setattr__(self, name, value):
        setattr(self._function, name, value)

    def __call__(self, grid, block, args, *, shared_mem=0):
        if any(isinstance(a, np.ndarray) for a in args):
            raise TypeError("a NumPy array where one of the device is expected")
        work = functools.partial(self._function, grid, block, args, shared_mem=shared_mem)
        enqueue(work, self._name)
