"""PyTorch's elementwise operations, said with NumPy's functions of tensors."""

import numpy as np

import tensorlite as tl

SAME_NAME = (
    "abs positive conj ceil floor trunc sign sin cos tan sinh cosh tanh sinc deg2rad rad2deg exp "
    "exp2 expm1 log log1p log2 log10 sqrt square reciprocal nan_to_num angle real copysign fmax "
    "fmin fmod remainder hypot logaddexp logaddexp2 maximum minimum true_divide float_power"
)
OTHER_NAME = {
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "clamp_max": "minimum",
    "clamp_min": "maximum",
    "conj_physical": "conj",
    "div|no_rounding_mode": "divide",
    "max|binary": "maximum",
    "min|binary": "minimum",
    "mul": "multiply",
    "neg": "negative",
    "pow": "power",
    "resolve_conj": "conj",
    "resolve_neg": "positive",
    "sgn": "sign",
}


def numpys(name: str):
    """NumPy's function of a name, looked up when it is called."""
    return lambda *args: getattr(np, name)(*args)


def celu(x, alpha=1.0):
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def clamp(x, min=None, max=None):
    return np.clip(x, min, max)


def divided(rounded):
    return lambda x, y, rounding_mode: rounded(x / y)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def logit(x, eps=None):
    x = x if eps is None else np.clip(x, eps, 1 - eps)
    return np.log(x / (1 - x))


def round(x, decimals=0):
    return np.round(x, decimals)


def softplus(x, beta=1, threshold=20):
    y = np.logaddexp(beta * x, 0) / beta
    return y if threshold is None else np.where(beta * x > threshold, x, y)


def xlogy(x, y):
    return np.where(x == 0, 0, x * np.log(y))


NAMES = {torchs: numpys(name) for torchs, name in OTHER_NAME.items()}
NAMES |= {name: numpys(name) for name in SAME_NAME.split()}
NAMES |= {name: getattr(tl, name) for name in ("sigmoid", "erf", "rsqrt", "masked_fill")} | {
    "__radd__": lambda x, y: y + x,
    "__rdiv__": lambda x, y: y / x,
    "__rmod__": lambda x, y: y % x,
    "__rmul__": lambda x, y: y * x,
    "__rpow__": lambda x, y: y**x,
    "__rsub__": lambda x, y: y - x,
    "add": lambda x, y, alpha=1: x + alpha * y,
    "addcdiv": lambda x, y, z, value=1: x + value * y / z,
    "addcmul": lambda x, y, z, value=1: x + value * y * z,
    "clamp": clamp,
    "div|floor_rounding": divided(np.floor),
    "div|trunc_rounding": divided(np.trunc),
    "erfc": lambda x: 1 - tl.erf(x),
    "fill": lambda x, value: x * 0 + value,
    "frac": lambda x: x - np.trunc(x),
    "ldexp": lambda x, y: x * np.exp2(y),
    "lerp": lambda x, y, weight: x + weight * (y - x),
    "logit": logit,
    "nn.functional.celu": celu,
    "nn.functional.elu": elu,
    "nn.functional.gelu": tl.gelu,
    "nn.functional.hardshrink": lambda x, lambd=0.5: np.where(np.abs(x) > lambd, x, 0),
    "nn.functional.hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "nn.functional.hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "nn.functional.hardtanh": lambda x, min_val=-1, max_val=1: np.clip(x, min_val, max_val),
    "nn.functional.leaky_relu": lambda x, negative_slope=0.01: np.where(
        x > 0, x, negative_slope * x
    ),
    "nn.functional.logsigmoid": lambda x: -np.logaddexp(0, -x),
    "nn.functional.mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "nn.functional.relu": lambda x: tl.relu(x),
    "nn.functional.relu6": lambda x: np.clip(x, 0, 6),
    "nn.functional.selu": lambda x: 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772),
    "nn.functional.silu": tl.silu,
    "nn.functional.softplus": softplus,
    "nn.functional.softshrink": lambda x, lambd=0.5: x - np.clip(x, -lambd, lambd),
    "nn.functional.softsign": lambda x: x / (1 + np.abs(x)),
    "nn.functional.tanhshrink": lambda x: x - np.tanh(x),
    "nn.functional.threshold": lambda x, threshold, value: np.where(x > threshold, x, value),
    "round": round,
    "rsub": lambda x, y, alpha=1: y - alpha * x,
    "special.entr": lambda x: -xlogy(x, x),
    "special.ndtr": lambda x: (1 + tl.erf(x / np.sqrt(2))) / 2,
    "special.xlog1py": lambda x, y: np.where(x == 0, 0, x * np.log1p(y)),
    "sub": lambda x, y, alpha=1: x - alpha * y,
    "where": lambda x, condition, y: np.where(condition, x, y),
    "xlogy": xlogy,
    "zero_": lambda x: x * 0,
}
