"""tensorlite: reverse-mode automatic differentiation over NumPy, and over CuPy on a GPU.

To read the code, start with tensor.py. This file only collects the public names.
"""

from . import cuda, linalg, methods, nn, numpy_names, optim
from .checkpointing import checkpoint
from .dlpack import from_dlpack
from .erf import erf
from .functional import (
    attention,
    causal_self_attention,
    cross_entropy,
    drop,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    qk_norm_rope,
    relu2,
    rms_norm,
    rope,
    scaled_dot_product_attention,
    silu,
    soft_cap,
    softmax,
    swiglu,
)
from .modes import autocast, detect_anomaly, higher_order, no_grad
from .numpy_ops import *
from .op import op
from .ops import (
    abs,
    add,
    astype,
    broadcast_to,
    concatenate,
    div,
    exp,
    expand_dims,
    getitem,
    log,
    masked_fill,
    matmul,
    max,
    mean,
    min,
    mul,
    neg,
    power,
    relu,
    reshape,
    rsqrt,
    scatter_add,
    sigmoid,
    sqrt,
    squeeze,
    sub,
    sum,
    swapaxes,
    tanh,
    transpose,
    where,
)
from .tensor import OPS, Tensor, grad, tensor
from .transforms import hessian, hvp, jacobian, jvp, value_and_grad, vjp

globals().update(numpy_names.CONSTANT)  # tl.argmax, tl.isnan and others without a gradient

__version__ = "0.1.0"
