"""Rotary positions: the angle of each place in a text, and how contexts were made longer.

At place t, pair i of a head's numbers is turned by t times the pair's frequency (`rope` turns it).
The frequencies fall from 1 to nearly 1 / theta. A model that was trained on short contexts reads
longer ones if the low frequencies, whose angles it has never seen, are made lower still: `linear`
divides all of them (Chen et al., 2023), `dynamic` raises theta with the length of the text, `yarn`
and `llama3` divide the low ones and leave the high ones (Peng et al., 2023; Llama 3.1).

Names and arithmetic are those of transformers (modeling_rope_utils.py), float32 included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..config import LIMIT

# What rope_parameters hold besides rope_theta, by rope_type: what must be there, what may be.
ROPE_TYPES = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor", "original_max_position_embeddings"}, set()),
    "llama3": (
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
        set(),
    ),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
}


def check_rope(parameters: Mapping) -> None:
    """Raise ValueError unless these are parameters of rotary positions that are supported."""
    kind = parameters["rope_type"]
    if not (isinstance(kind, str) and kind in ROPE_TYPES):
        raise ValueError(f"rope_type is one of {', '.join(ROPE_TYPES)}, not {kind!r}")
    required, optional = ROPE_TYPES[kind]
    required = required | {"rope_theta"}
    if missing := sorted(required - parameters.keys()):
        raise ValueError(f"rope_parameters of type {kind!r} have no {', '.join(missing)}")
    if unknown := sorted(parameters.keys() - required - optional - {"rope_type"}):
        raise ValueError(
            f"rope_parameters of type {kind!r} have {', '.join(unknown)}, which would be ignored: "
            "the positions would be wrong"
        )
    for name, value in parameters.items():
        if name == "rope_type" or (value is None and name in optional):
            continue
        if name == "truncate":
            right, what = isinstance(value, bool), "true or false"
        elif name == "original_max_position_embeddings":
            right, what = type(value) is int and 0 < value < LIMIT, "a positive integer"
        else:
            least = 1 if name == "rope_theta" else 0
            right = type(value) in (int, float) and least < value < 1e15
            what = f"a number above {least}"
        if not right:
            raise ValueError(f"rope_parameters: {name} is {what}, not {value!r}")
    if kind == "llama3" and parameters["low_freq_factor"] >= parameters["high_freq_factor"]:
        raise ValueError("rope_parameters: low_freq_factor is not below high_freq_factor")


class Rotary:
    """The angles by which the pairs of a head are turned, at any place in a text."""

    def __init__(self, parameters: Mapping, head_size: int, context: int):
        self.parameters, self.head_size, self.context = parameters, head_size, context
        self.kept = {}  # the frequencies that were needed last, on their device

    def __call__(self, places, like):
        """Cosines and sines, float32, on the device of the array `like`.

        places (T,) -> 2 x (T, hs / 2), or (B, T) -> 2 x (B, 1, T, hs / 2).
        """
        dynamic = self.parameters["rope_type"] == "dynamic"
        length = int(places.max()) + 1 if dynamic else 0
        frequency, scale = frequencies(self.parameters, self.head_size, self.context, length)
        if (length, type(like)) not in self.kept:  # to copy it to a GPU each time would take longer
            self.kept = {(length, type(like)): np.asarray(frequency, like=like)}
        frequency = self.kept[length, type(like)]  # (hs / 2,)
        places = np.asarray(places, like=like)  # they may be on the CPU
        angle = places.astype(np.float32)[..., None] * frequency  # (T, hs / 2) or (B, T, hs / 2)
        angle = angle if angle.ndim == 2 else angle[:, None]  # the same for all heads
        return np.cos(angle) * scale, np.sin(angle) * scale


def frequencies(
    parameters: Mapping, head_size: int, context: int, length: int
) -> tuple[np.ndarray, float]:
    """(the frequency of each pair (head_size / 2,) in float32, what cos and sin are scaled by).

    `context` is the length that the positions were made for, `length` that of the text at hand.
    """
    kind, theta = parameters["rope_type"], float(parameters["rope_theta"])
    factor = parameters.get("factor", 1.0)
    if kind == "dynamic" and length > context:
        more = factor * length / context - (factor - 1)
        theta *= more ** (head_size / (head_size - 2))
    pairs = np.arange(0, head_size, 2).astype(np.float32) / np.float32(head_size)
    wavelike = np.float32(theta) ** pairs  # (head_size / 2,)
    frequency = 1 / wavelike
    if kind == "linear":
        return frequency / np.float32(factor), 1.0
    if kind == "llama3":
        return _llama3(frequency, parameters), 1.0
    if kind == "yarn":
        return _yarn(wavelike, theta, parameters)
    return frequency, 1.0


def _llama3(frequency, parameters):
    """Low frequencies divided by the factor, high ones kept, those between in between."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    # How often the wave turns in the context that the model was first trained on.
    turns = parameters["original_max_position_embeddings"] * frequency / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1).astype(np.float32)
    return frequency * kept + frequency / np.float32(parameters["factor"]) * (1 - kept)


def _yarn(wavelike, theta, parameters):
    """The same by the place of the pair, and attention made sharper by a factor."""
    factor, context = parameters["factor"], parameters["original_max_position_embeddings"]
    n = len(wavelike)

    def pair_that_turns(times):
        return n * math.log(context / (times * 2 * math.pi)) / math.log(theta)

    first = pair_that_turns(parameters.get("beta_fast") or 32)
    last = pair_that_turns(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * n - 1)
    last += 0.001 if first == last else 0
    divided = np.clip((np.arange(n, dtype=np.float32) - first) / (last - first), 0, 1)
    divided = divided.astype(np.float32)
    frequency = 1 / (np.float32(factor) * wavelike) * divided + 1 / wavelike * (1 - divided)

    def sharper(mscale=1.0):
        return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0

    scale, over = parameters.get("mscale"), parameters.get("mscale_all_dim")
    attention = parameters.get("attention_factor")
    if attention is None:
        attention = sharper(scale) / sharper(over) if scale and over else sharper()
    return frequency, float(attention)
