"""tensorlite: reverse-mode automatic differentiation over NumPy, and CuPy where there is a GPU."""

from . import nn, optim
from .device import cuda
from .functional import (
    attention,
    cross_entropy,
    drop,
    dropout,
    gelu,
    layer_norm,
    linear,
    linear_cross_entropy,
    log_softmax,
    scaled_dot_product_attention,
    softmax,
)
from .ops import (
    abs,
    add,
    astype,
    broadcast_to,
    concatenate,
    div,
    embedding,
    exp,
    expand_dims,
    getitem,
    log,
    masked_fill,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mul,
    neg,
    power,
    relu,
    reshape,
    split,
    sqrt,
    squeeze,
    sub,
    sum,
    swapaxes,
    take_along_axis,
    tanh,
    transpose,
    var,
    where,
)
from .tensor import OPS, Tensor, grad, no_grad, op, tensor

__version__ = "0.1.0"
