"""What a tensor reports about its array, and the engine's helpers for arrays.

`ArrayLike` is the part of `Tensor` (tensor.py) that has nothing to do with gradients: shape and
dtype, conversion to NumPy and to Python's numbers, printing, and NumPy's protocols, by which
np.exp(tensor) calls our `exp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .device import place
from .protect import owner_of

NUMPY: dict[Callable, Callable] = {}  # NumPy's function -> ours; filled by numpy_names.py


class ArrayLike:
    """An object that has an array in `data` and its shape, dtype, length and so on."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return "cpu" if isinstance(self.data, np.ndarray) else "cuda"

    def item(self) -> int | float | bool:
        """The value of a tensor of one element, as a Python number."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own memory on the CPU, a copy from a GPU."""
        return place(self.data, "cpu")

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise TypeError(
                "this tensor needs a gradient, which NumPy would lose: call .numpy() or .detach(), "
                "or tl.stack(list) to make one tensor of a list of tensors"
            )
        return np.array(self.data, dtype=dtype, copy=copy)

    def __dlpack__(self, **options):
        if self.requires_grad:
            raise TypeError(
                "this tensor needs a gradient, which another library would lose: call .detach()"
            )
        if self.device == "cpu" and not self.data.flags.writeable and not options.get("copy"):
            raise BufferError(
                "this tensor is read-only, as while a pending backward pass needs it, and another "
                "library might write to it: give away a .copy()"
            )
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = NUMPY.get(ufunc)
        if function is None or method != "__call__" or kwargs:
            call = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            given = "".join(f", {name}=" for name in kwargs)
            way_out = "write a = a + x for a += x" if "out" in kwargs else "use .numpy() or a tl op"
            raise TypeError(f"np.{call}(...{given}) does not take tensors: {way_out}")
        return function(*inputs)

    def __array_function__(self, function, types, args, kwargs):
        ours = NUMPY.get(function)
        if ours is None:
            raise TypeError(f"np.{function.__name__} does not take tensors: use .numpy()")
        return ours(*args, **kwargs)

    def __setstate__(self, state) -> None:
        """Restore what was pickled. Protocol 5 gives a read-only array, if it was one, as bytes."""
        for name, value in state[1].items():
            setattr(self, name, value)
        if isinstance(self.data, np.ndarray) and isinstance(owner_of(self.data).base, bytes):
            self.data = self.data.copy()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __format__(self, spec: str) -> str:
        return format(self._number(), spec) if spec else str(self)

    def _number(self) -> int | float | bool:
        if self.size != 1:
            raise TypeError(
                f"only a tensor of one element can be used as a number; this has shape {self.shape}"
            )
        return self.item()

    def __index__(self) -> int:
        return self.numpy().__index__()  # CuPy's arrays have no __index__

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        device = "" if self.device == "cpu" else f", device='{self.device}'"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}{dtype}{device}{grad})"


# =================================================================================================
# Arrays
# =================================================================================================


def is_array(value) -> bool:
    """Whether `value` is an array or scalar of NumPy or CuPy, and not of another library."""
    return isinstance(getattr(value, "dtype", None), np.dtype)


def type_name(value) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def whole(x):
    """`x`, or a 0-d array if `x` is a scalar, which NumPy returns instead of a 0-d result."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def array_of(x):
    """The array of a tensor; anything else unchanged."""
    return x.data if isinstance(x, ArrayLike) else x


def number_dtype(dtype) -> np.dtype:
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16()
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf" and dtype.name != "bfloat16":
        raise TypeError(f"a tensor holds real numbers, not {dtype}")
    return bfloat16() if dtype.kind == "V" else dtype


BFLOAT16: list[np.dtype] = []  # the dtype, once somebody has asked for it


def bfloat16() -> np.dtype:
    """The dtype bfloat16, with the exponents of float32 and 7 bits after the point.

    Raises ImportError if ml_dtypes, which brings it to NumPy, is not installed.
    """
    if not BFLOAT16:
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
        BFLOAT16.append(np.dtype(ml_dtypes.bfloat16))
    return BFLOAT16[0]


def is_float(dtype) -> bool:
    """Whether numbers of the dtype are floating-point; NumPy itself does not know bfloat16."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def is_half(dtype) -> bool:
    """Whether the dtype is float16 or bfloat16, in which numbers are stored but not added up."""
    return dtype.itemsize == 2 and is_float(dtype)


def on_gpu(values) -> bool:
    """Whether one of the values is an array on a GPU."""
    for v in values:
        if hasattr(v, "dtype") and not isinstance(v, (np.ndarray, np.generic)):
            return True
    return False


def check_differentiable(array) -> bool:
    if not is_float(array.dtype):
        raise TypeError(
            f"only floating-point tensors can require gradients, not {array.dtype}: convert it "
            "with .astype(np.float32), or make it of floats, such as 1.0"
        )
    return True


def broadcasts(shape: tuple, to: tuple) -> bool:
    """Whether an array of `shape` can be broadcast to the shape `to`."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1]))


def wide_sum(x, axis, keepdims: bool = False):
    """np.sum, except that numbers of 16 bits are added in float32; the sum has 16 bits again."""
    if is_half(x.dtype) and not isinstance(x, ArrayLike):
        return np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(x.dtype)
    return np.sum(x, axis=axis, keepdims=keepdims)
