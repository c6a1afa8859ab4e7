"""The functions of neural networks: each composed from primitives first, then fused.

The composed definition is what to read: a few lines whose gradient the engine derives. The fused
operation below it computes the same in one pass over the data, with a gradient worked out by hand;
one test walks all of them and holds value and gradients equal.

Fused bodies go over blocks of rows that fit the cache (`row_blocks`) and write with `out=` into
arrays of their own.
"""

from .activations import gelu, silu
from .attention import (
    attention,
    causal_self_attention,
    packed_attention,
    scaled_dot_product_attention,
)
from .dropout import drop, dropout
from .embedding import embedding
from .linear import linear
from .loss import cross_entropy, linear_cross_entropy
from .norm import layer_norm, rms_norm
from .softmax import log_softmax, logsumexp, softmax
