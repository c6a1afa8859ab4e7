"""The GPU as a user sees it: whether there is one, and a function captured as one CUDA graph.

A GPU computes a small operation in a few microseconds, but Python and CuPy take 23 to launch it.
What launches the same kernels each time can be recorded once and launched as a whole: a graph. No
Python runs then, and the GPU goes from kernel to kernel without waiting for it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .device import is_available, place
from .tensor import Tensor

__all__ = ["Captured", "capture", "device_name", "is_available", "memory_hint"]

# =================================================================================================
# Capture
# =================================================================================================


def capture(fn: Callable, *, warmup: int = 2, restore: Sequence = ()) -> Captured:
    """A function that computes what `fn` does, by one launch of a CUDA graph.

        def step(x, y):
            loss = model.loss(x, y)
            loss.backward()
            optimizer.step()  # of an SGD: its learning rate stays as it is now
            optimizer.zero_grad()
            return loss

        step = tl.cuda.capture(step)
        for x, y in batches:
            loss = step(x, y)

    The arguments are arrays of NumPy or CuPy, and `fn` is given CuPy arrays. The first call runs
    `fn` `warmup` times, which compiles kernels and chooses how to compute products, records what it
    launches, and launches that. Later calls copy the arguments into the arrays which `fn` was
    given, and launch it again: **the Python code of `fn` does not run again**, so that its numbers
    and its choices stay as they were. Whatever is to change from call to call is an argument, or is
    changed on the GPU. (AdamW counts its steps in Python, and so refuses to be captured; see
    kernels/update.py for an update that is told the count by an argument.) A call returns at once;
    what `fn` returned is the result of every call, and each call overwrites it. Its arrays are read
    as all others are, after they are computed.

    Warming up runs `fn` in earnest. If it changes arrays that matter, such as parameters and the
    state of an optimizer, give them as `restore`, tensors or arrays: they are put back afterwards.
    What exists in Python alone, such as a count of steps, is the caller's concern.

    Memory that `fn` allocates belongs to the graph for as long as the returned function lives.

    Raises ValueError for a `warmup` less than 1, and RuntimeError without a usable GPU. The first
    call raises RuntimeError if something in `fn` cannot be captured, with the line that asked for
    it: a value read back to the host, host memory copied to the GPU, a product without cuBLASLt.
    Calls raise TypeError for arguments that are no arrays and ValueError for arrays of other shapes
    or dtypes than the first call's.
    """
    return Captured(fn, warmup, restore)


class Captured:
    """What `capture` returns. `stream` is the CuPy stream that it computes on."""

    def __init__(self, fn: Callable, warmup: int, restore: Sequence):
        if warmup < 1:
            raise ValueError(f"warmup is the number of runs before the capture, not {warmup}")
        place(np.zeros(1), "cuda")  # raises RuntimeError without a GPU
        import cupy

        self.fn = fn
        self.warmup = warmup
        self.restore = restore
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool()  # nobody else is given the memory of the graph
        self._before, self._after = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        self._graph = self._result = self._inputs = None

    def __call__(self, *inputs):
        if self._graph is None:
            self.record(*inputs)
        with self._ordered():
            self._inputs.copy(inputs)
            self._graph.launch(self.stream)
        return self._result

    def record(self, *inputs) -> None:
        """Warm up and record, as the first call would, without a launch. See `capture`."""
        _check_arrays(inputs)
        with self._ordered():
            self._inputs = Inputs(inputs, self.stream)
            self._inputs.copy(inputs)
            self._graph, self._result = self._record()

    @contextlib.contextmanager
    def _ordered(self):
        """Work for `stream` comes after what the caller began, and before what the caller begins.

        The stream is a non-blocking one: CUDA itself would put the two in no order.
        """
        import cupy

        caller = cupy.cuda.get_current_stream()
        self._before.record(caller)
        self.stream.wait_event(self._before)
        try:
            yield
        finally:
            self._after.record(self.stream)
            caller.wait_event(self._after)

    def _record(self):
        """The graph, and what `fn` returned while it was recorded."""
        import cupy

        from .kernels import cublaslt

        with cupy.cuda.using_allocator(self._pool.malloc), self.stream:
            arrays = [a.data if isinstance(a, Tensor) else a for a in self.restore]
            saved = [a.copy() for a in arrays]
            timing = cublaslt.choose(True)
            try:
                for _ in range(self.warmup):
                    self.fn(*self._inputs.arrays)
            finally:
                cublaslt.choose(timing)
                for array, copy in zip(arrays, saved, strict=True):
                    array[...] = copy
            self.stream.synchronize()  # if a kernel failed, the error is raised here
            try:
                with _recording(self.stream) as graph:
                    result = self.fn(*self._inputs.arrays)
            except Exception as error:
                raise RuntimeError(_cannot_capture(self.fn, error)) from error
            return graph[0], result


@contextlib.contextmanager
def _recording(stream):
    """Give a list to which, at the end, the graph of what was launched within is appended.

    CuPy copies memory of the host to the GPU by way of pinned memory that it uses again for other
    things: a graph would copy those. So it is given no pinned memory here.
    """
    import cupy

    graph = []
    cupy.cuda.set_pinned_memory_allocator(_refuse_pinned_memory)
    stream.begin_capture()
    try:
        yield graph
        graph.append(stream.end_capture())
    except BaseException:
        with contextlib.suppress(Exception):  # raises where the error has spoilt the capture
            stream.end_capture()
        raise
    finally:
        cupy.cuda.set_pinned_memory_allocator(cupy.get_default_pinned_memory_pool().malloc)


class _HostMemory(RuntimeError):
    """Memory of the host would be copied to the GPU while a graph is recorded."""


def _refuse_pinned_memory(size: int):
    raise _HostMemory(f"{size} bytes of the host are copied to the GPU")


class Inputs:
    """The arrays on the GPU that a captured function is given, and the way into them.

    They lie in one piece of memory, which one copy fills.
    """

    def __init__(self, inputs: Sequence, stream):
        import cupy

        self.stream = stream
        self._kinds = [(a.shape, a.dtype) for a in inputs]
        sizes = [-(-a.nbytes // 256) * 256 for a in inputs]  # each begins at a multiple of 256
        ends = list(itertools.accumulate(sizes))
        self._parts = [slice(end - size, end) for size, end in zip(sizes, ends)]
        self._memory = cupy.empty(max([256, *ends]), np.uint8)
        self.arrays = [
            self._memory[part][: a.nbytes].view(a.dtype).reshape(a.shape)
            for part, a in zip(self._parts, inputs)
        ]
        # The GPU reads a copy's host memory after the call has returned, so that there are two,
        # used in turn. Only from pinned memory is the copy made without waiting.
        size = self._memory.nbytes
        pinned = (cupy.cuda.alloc_pinned_memory(size) for _ in range(2))
        self._pinned = [np.frombuffer(memory, np.uint8, size) for memory in pinned]
        self._copied = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
        self._turn = 0

    def copy(self, inputs: Sequence) -> None:
        """Copy `inputs` into the arrays, in the order of the stream.

        Raises ValueError for another number of arrays, and for other shapes or dtypes.
        """
        _check_arrays(inputs)
        if [(a.shape, a.dtype) for a in inputs] != self._kinds:
            raise ValueError(
                f"a captured function takes what it was captured with: {_described(self.arrays)}; "
                f"given {_described(inputs)}. Capture the function again for other arrays"
            )
        if not inputs:
            return  # and wait for nothing
        self._turn ^= 1
        self._copied[self._turn].synchronize()  # the copy of the call before the last
        pinned, on_gpu = self._pinned[self._turn], []
        for part, array, value in zip(self._parts, self.arrays, inputs):
            if isinstance(value, (np.ndarray, np.generic)):
                raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
                pinned[part][: raw.size] = raw
            else:
                on_gpu.append((array, value))
        if len(on_gpu) < len(inputs):
            address = pinned.ctypes.data
            self._memory.data.copy_from_host_async(address, pinned.nbytes, self.stream)
        with self.stream:
            for array, value in on_gpu:
                array[...] = value
        self._copied[self._turn].record(self.stream)


def _described(arrays: Sequence) -> str:
    return ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays) or "no arrays"


def _check_arrays(inputs: Sequence) -> None:
    for i, value in enumerate(inputs):
        if not (hasattr(value, "dtype") and hasattr(value, "ndim")) or isinstance(value, Tensor):
            raise TypeError(
                f"argument {i} of a captured function is of type {type(value).__name__}; it must "
                "be an array of NumPy or CuPy, since any other value would stay as it is now"
            )


# =================================================================================================
# Errors as sentences
# =================================================================================================

READING = {"item", "get", "tolist", "numpy", "asnumpy"}
READING |= {"__float__", "__int__", "__bool__", "__index__", "__repr__", "__format__"}


def _cannot_capture(fn: Callable, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    # Frames of compiled code have dotted names, such as cupy._core.core._ndarray_base.get.
    names = {frame.name.rpartition(".")[2] for frame in frames}
    if isinstance(error, NotImplementedError):
        reason = (
            "it computes a product or random numbers by a library that CuPy does not let capture; "
            "products need cuBLASLt (pip install nvmath-python, or 'tensorlite[cuda12]')"
        )
    elif isinstance(error, _HostMemory):
        reason = "it copies memory of the host to the GPU; do so before, or make it an argument"
    elif "captur" not in str(error).lower():
        reason = "it raised an error that it did not raise before"
    elif "has not run before" in str(error):
        reason = "it launches what it did not launch while it warmed up"
    elif names & READING:
        reason = (
            "it reads a value back (item, float, if, print), which the host would have to wait for;"
            " return the array instead"
        )
    else:
        reason = "it asks for what is not possible while a graph is recorded"
    return f"{_name(fn)} cannot be captured: {reason}{_line(frames)} ({error})"


def _name(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _line(frames) -> str:
    """The user's line: the last that is neither ours nor an installed package's."""
    import cupy

    folders = tuple(str(Path(f).parent) for f in (__file__, np.__file__, cupy.__file__))
    for frame in reversed(frames):
        name = frame.filename
        if frame.line and not name.startswith(folders) and "site-packages" not in name:
            return f". The line: {frame.line} ({Path(name).name}, line {frame.lineno})"
    return ""


def device_name() -> str:
    """The name of the GPU in use, such as "NVIDIA H100 80GB HBM3"."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return name.decode() if isinstance(name, bytes) else name


def memory_hint(error: MemoryError) -> str:
    """CuPy's OutOfMemoryError as a sentence: what was asked for, what is free, what to lower."""
    import cupy

    asked = re.search(r"allocating ([\d,]+) bytes", str(error))
    free, total = cupy.cuda.runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    kept = pool.total_bytes() - pool.used_bytes()
    size = _gigabytes(int(asked[1].replace(",", ""))) if asked else "memory"
    return (
        f"the GPU has too little memory: {size} were asked for, and {_gigabytes(free + kept)} of "
        f"{_gigabytes(total)} are free. Lower the batch size (with more gradient accumulation "
        "steps the batch stays as it is), the block size or the size of the model"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
