"""PyTorch's functions of neural networks and its losses, said with ours and with NumPy's."""

import math

import numpy as np

import tensorlite as tl

from .compare import CannotSay
from .elementwise import softplus
from .reductions import vector_norm


def softmax(x, dim, dtype=None):
    return tl.softmax(x, dim)


def log_softmax(x, dim, dtype=None):
    return tl.log_softmax(x, dim)


def softmin(x, dim, dtype=None):
    return tl.softmax(-x, dim)


def reduced(loss, reduction="mean"):
    return loss if reduction == "none" else {"mean": np.mean, "sum": np.sum}[reduction](loss)


def elementwise_loss(function):
    """A loss of prediction and target, element by element, with torch's `reduction`."""
    return lambda x, y, reduction="mean", **named: reduced(function(x, y, **named), reduction)


def huber(x, y, delta=1.0):
    d = np.abs(x - y)
    return np.where(d < delta, d * d / 2, delta * (d - delta / 2))


def smooth_l1(x, y, beta=1.0):
    d = np.abs(x - y)
    return np.where(d < beta, d * d / (2 * beta or 1), d - beta / 2)


def kl_div(x, y, reduction="mean", log_target=False):
    safe = np.where(y > 0, y, 1)
    loss = np.exp(y) * (y - x) if log_target else np.where(y > 0, y * np.log(safe), 0) - y * x
    return np.sum(loss) / x.shape[0] if reduction == "batchmean" else reduced(loss, reduction)


def binary_cross_entropy(x, y, weight=None, reduction="mean"):
    loss = -(y * np.maximum(np.log(x), -100) + (1 - y) * np.maximum(np.log1p(-x), -100))
    return reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(x, y, weight=None, reduction="mean", pos_weight=1.0):
    loss = (1 - y) * x + (1 + (pos_weight - 1) * y) * np.logaddexp(0, -x)
    return reduced(loss if weight is None else loss * weight, reduction)


def gaussian_nll(x, y, var, full=False, eps=1e-6, reduction="mean"):
    """The variance is kept above eps, by a change that torch does not differentiate."""
    var = np.broadcast_to(var if var.ndim in (0, x.ndim) else var[..., None], x.shape)
    var = var + np.maximum(eps - var.detach(), 0)
    loss = (np.log(var) + (x - y) ** 2 / var + (math.log(2 * math.pi) if full else 0)) / 2
    return reduced(loss, reduction)


def poisson_nll(x, y, log_input=True, full=False, eps=1e-8, reduction="mean"):
    loss = np.exp(x) - y * x if log_input else x - y * np.log(x + eps)
    if full:
        high = np.where(y > 1, y, 2)
        stirling = high * np.log(high) - high + 0.5 * np.log(2 * math.pi * high)
        loss = loss + np.where(y > 1, stirling, 0)
    return reduced(loss, reduction)


def hinge_embedding(x, y, margin=1.0, reduction="mean"):
    loss = np.where(y != 1, np.maximum(margin - x, 0), 0) + np.where(y != -1, x, 0)
    return reduced(loss, reduction)


def margin_ranking(x, y, target, margin=0.0, reduction="mean"):
    return reduced(tl.relu(margin - target * (x - y)), reduction)


def multilabel_soft_margin(x, y, weight=None, reduction="mean"):
    loss = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    return reduced(np.mean(loss if weight is None else loss * weight, axis=-1), reduction)


def cosine_similarity(x, y, dim=1, eps=1e-8):
    def norm(v):
        return np.sqrt(np.maximum(np.sum(v * v, axis=dim, keepdims=True), eps * eps))

    shape = np.broadcast_shapes(x.shape, y.shape) or (1,)
    x, y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    return np.sum(x / norm(x) * (y / norm(y)), axis=dim)


def cosine_embedding(x, y, target, margin=0.0, reduction="mean"):
    products, eps = np.sum(x * y, axis=-1), 1e-12
    sizes = (np.sum(x * x, axis=-1) + eps) * (np.sum(y * y, axis=-1) + eps)
    cos = products / np.sqrt(sizes)
    loss = np.where(target == 1, 1 - cos, 0) + np.where(target == -1, tl.relu(cos - margin), 0)
    return reduced(loss, reduction)


def pairwise_distance(x, y, p=2.0, eps=1e-6, keepdim=False):
    return vector_norm(x - y + eps, p, -1, keepdim)


def triplet_margin(
    a, positive, negative, margin=1.0, p=2, swap=False, reduction="mean", distance_function=None
):
    near, far = pairwise_distance(a, positive, p), pairwise_distance(a, negative, p)
    if swap:
        far = np.minimum(far, pairwise_distance(positive, negative, p))
    return reduced(np.maximum(near - far + margin, 0), reduction)


def normalize(x, p=2.0, dim=1, eps=1e-12):
    return x / np.maximum(vector_norm(x, p, dim, keepdim=True), eps)


def nll(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """The classes are on axis 1, or on axis 0 of a vector."""
    axis = 0 if x.ndim == 1 else 1
    kept = target != ignore_index
    target = np.where(kept, target, 0)
    found = np.squeeze(np.take_along_axis(x, np.expand_dims(target, axis), axis), axis)
    weights = (1.0 if weight is None else np.take(weight, target)) * kept
    loss = -found * weights
    return np.sum(loss) / np.sum(weights) if reduction == "mean" else reduced(loss, reduction)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """With targets that are classes by ours, whose classes are on the last axis."""
    axis = 0 if x.ndim == 1 else 1
    if target.dtype.kind == "i" and weight is None:
        x = np.moveaxis(x, axis, -1)
        return tl.cross_entropy(
            x,
            target,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    logp = tl.log_softmax(x, axis)
    if target.dtype.kind == "i":
        plain = nll(logp, target, weight, ignore_index, reduction)
        if not label_smoothing:
            return plain
        w, kept = weight, target != ignore_index
        along = w.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        smooth = -np.sum(logp * along, axis=axis) * kept
        total = np.sum(np.take(w, np.where(kept, target, 0)) * kept)
        smooth = np.sum(smooth) / total if reduction == "mean" else reduced(smooth, reduction)
        return (1 - label_smoothing) * plain + label_smoothing / x.shape[axis] * smooth
    target = target * (1 - label_smoothing) + label_smoothing / x.shape[axis]
    w = 1 if weight is None else weight.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    loss = -np.sum(logp * target * w, axis=axis)
    if reduction == "mean":
        return np.sum(loss) / (x.size / x.shape[axis])
    return reduced(loss, reduction)


def linear_cross_entropy(x, w, target, reduction="mean", ignore_index=None, **named):
    if w.ndim > 2 or target.dtype.kind != "i" or reduction == "none" or named:
        raise CannotSay("probabilities, weights of classes, a bias, or one loss for each row")
    ignored = -100 if ignore_index is None else ignore_index
    return tl.linear_cross_entropy(x, w, target, ignore_index=ignored, reduction=reduction)


def normalized(x, axes, eps):
    return (x - np.mean(x, axis=axes, keepdims=True)) / np.sqrt(
        np.var(x, axis=axes, keepdims=True) + eps
    )


def affine(y, weight, bias, shape):
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    """Ours normalises the last axis; of several axes one is made."""
    n = len(shape)
    flat = np.reshape(x, (*x.shape[: x.ndim - n], math.prod(shape)))
    w, b = (None if a is None else a.reshape(-1) for a in (weight, bias))
    return tl.layer_norm(flat, w, b, eps).reshape(x.shape)


def rms_norm(x, shape, weight=None, eps=None):
    n = len(shape)
    flat = np.reshape(x, (*x.shape[: x.ndim - n], math.prod(shape)))
    eps = np.finfo(np.float64).eps if eps is None else eps
    return tl.rms_norm(flat, None if weight is None else weight.reshape(-1), eps).reshape(x.shape)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    split = np.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    y = normalized(split, -1, eps).reshape(x.shape)
    return affine(y, weight, bias, (-1,) + (1,) * (x.ndim - 2))


def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
    momentum=0.1, eps=1e-5,
):  # fmt: skip
    y = normalized(x, tuple(range(2, x.ndim)), eps)
    return affine(y, weight, bias, (-1,) + (1,) * (x.ndim - 2))


def batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    shape = (-1,) + (1,) * (x.ndim - 2)
    if training:
        y = normalized(x, (0, *range(2, x.ndim)), eps)
    else:
        y = (x - running_mean.reshape(shape)) / np.sqrt(running_var.reshape(shape) + eps)
    return affine(y, weight, bias, shape)


def attention(
    q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if dropout_p:
        raise CannotSay("draws what it drops")
    if enable_gqa:
        n = q.shape[-3] // k.shape[-3]
        k, v = np.repeat(k, n, axis=-3), np.repeat(v, n, axis=-3)
    return tl.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=scale)


def embedding(weight, ids, padding_idx=None, max_norm=None, **_):
    if padding_idx is not None:  # the row of the padding gets no gradient
        kept = np.arange(weight.shape[0]) != padding_idx % weight.shape[0]
        weight = np.where(kept[:, None], weight, weight.detach())
    return tl.embedding(weight, ids)


def glu(x, dim=-1):
    a, b = np.split(x, 2, axis=dim)
    return a * tl.sigmoid(b)


def prelu(x, weight):
    if weight.ndim and x.ndim > 1:
        weight = weight.reshape((-1,) + (1,) * (x.ndim - 2))
    return np.where(x > 0, x, weight.reshape(()) * x if weight.size == 1 else weight * x)


def soft_margin(x, y, reduction="mean"):
    return reduced(np.log1p(np.exp(-y * x)), reduction)


NAMES = {
    "log_softmax": log_softmax,
    "softmax": softmax,
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.binary_cross_entropy": binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "nn.functional.cosine_embedding_loss": cosine_embedding,
    "nn.functional.cosine_similarity": cosine_similarity,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.embedding": embedding,
    "nn.functional.gaussian_nll_loss": gaussian_nll,
    "nn.functional.glu": glu,
    "nn.functional.group_norm": group_norm,
    "nn.functional.hinge_embedding_loss": hinge_embedding,
    "nn.functional.huber_loss": elementwise_loss(huber),
    "nn.functional.instance_norm": instance_norm,
    "nn.functional.kl_div": kl_div,
    "nn.functional.l1_loss": elementwise_loss(lambda x, y: np.abs(x - y)),
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.linear_cross_entropy": linear_cross_entropy,
    "nn.functional.margin_ranking_loss": margin_ranking,
    "nn.functional.mse_loss": elementwise_loss(lambda x, y: (x - y) ** 2),
    "nn.functional.multilabel_soft_margin_loss": multilabel_soft_margin,
    "nn.functional.nll_loss": nll,
    "nn.functional.normalize": normalize,
    "nn.functional.pairwise_distance": pairwise_distance,
    "nn.functional.poisson_nll_loss": poisson_nll,
    "nn.functional.prelu": prelu,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.scaled_dot_product_attention": attention,
    "nn.functional.smooth_l1_loss": elementwise_loss(smooth_l1),
    "nn.functional.soft_margin_loss": soft_margin,
    "nn.functional.softmin": softmin,
    "nn.functional.softplus": softplus,
    "nn.functional.triplet_margin_loss": triplet_margin,
    "nn.functional.triplet_margin_with_distance_loss": triplet_margin,
}
