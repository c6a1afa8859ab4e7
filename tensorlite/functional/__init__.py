"""The functions of neural networks, each defined twice: composed from primitives, then fused.

Read the composed definition first: it is a few lines long, and the engine derives its gradient. The
fused operation below it computes the same faster, with a gradient derived by hand. A test compares
the value and the gradients of the two for every operation.

Fused bodies work on blocks of rows that fit the cache (`row_blocks` in device.py) and write with
`out=` into arrays that they have allocated. The primitives are in ops.py; nn.py, which is next to
read, builds modules on these functions.
"""

from .activations import gelu, relu2, silu, soft_cap, swiglu
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
from .rope import qk_norm_rope, rope
from .softmax import log_softmax, logsumexp, softmax
