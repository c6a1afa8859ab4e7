"""The functions of elementwise.py, trigonometric.py and exponentials.py in PyTorch."""

import torch

SAME_NAME = (
    "tan arcsin arccos arctan arctan2 sinh cosh arcsinh arccosh arctanh sinc deg2rad rad2deg "
    "exp2 expm1 log2 log10 log1p logaddexp logaddexp2 square reciprocal float_power hypot "
    "copysign positive real conj fmax fmin nan_to_num remainder fmod "
    "sign floor ceil trunc fix round"
)


def cbrt(x):
    return torch.sign(x) * torch.abs(x) ** (1 / 3)


def float_power(x, y):
    return torch.float_power(x, y).to(x.dtype)


def floor_divide(x, y):  # torch's own refuses a gradient
    return torch.floor(x / y)


def heaviside(x, y):  # so does this one
    return torch.where(x == 0, y, (x > 0).to(x.dtype))


THEIRS = {name: getattr(torch, name) for name in SAME_NAME.split()} | {
    "copy": torch.clone,
    "real_if_close": torch.real,
    "radians": torch.deg2rad,
    "degrees": torch.rad2deg,
    "cbrt": cbrt,
    "float_power": float_power,
    "fabs": torch.abs,
    "ldexp": lambda x, exponent: x * torch.as_tensor(2.0**exponent, dtype=x.dtype),
    "mod": torch.remainder,
    "floor_divide": floor_divide,
    "divmod": lambda x, y: (floor_divide(x, y), torch.remainder(x, y)),
    "heaviside": heaviside,
    "rint": torch.round,
    "around": torch.round,
}
EXCEPTIONS = {"interp": "torch has no interpolation in a table; see test_numpy_elementwise.py"}
DIFFERENCES = {
    "arccosh": "the gradient is NaN below -1, as the value is; torch has a number",
    "logaddexp": "equal infinities share the gradient; torch has NaN",
    "hypot": "the gradient is 0 where both are 0; torch has NaN",
    "fmax": "ties share the gradient, as in maximum; torch gives all of it to the first",
    "float_power": "keeps the dtype of its arguments; torch has float64",
    "clip": "where min and max are equal, the bound that replaced x has the gradient; torch gives "
    "it to none",
}
