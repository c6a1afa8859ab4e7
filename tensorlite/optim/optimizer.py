"""The base of the optimizers: groups of parameters, the step, the state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np

from ..device import is_capturing, row_blocks
from ..tensor import Tensor
from ..writing import check_writeable, fitting
from .clipping import limit, sum_of_squares


class Optimizer(ABC):
    """The base of SGD and AdamW, with groups of parameters that have options of their own.

    `params_or_groups` is a sequence of tensors, of pairs (name, tensor) as from
    `named_parameters()`, or of groups. A group is a dictionary with "params" and any of the
    options, which replace the defaults: [{"params": norms, "weight_decay": 0.0}, ...].

    Parameters are floating-point leaves. A step does not change a parameter that is frozen
    (`requires_grad` False) or has no gradient; a frozen one may be unfrozen later. Raises TypeError
    for what is not a tensor, and ValueError for a tensor that is not a floating-point leaf, for a
    float16 tensor, for a parameter that is given twice, if no parameter requires a gradient, and
    for options out of range.
    """

    counts = False  # whether an update depends on how many came before
    slots: tuple[str, ...] = ()  # the names of the arrays that are kept for each parameter

    def __init__(self, params_or_groups: Iterable, **options):
        entries = _listed(params_or_groups)
        if not any(isinstance(entry, dict) for entry in entries):
            entries = [{"params": entries}]
        self.groups, self.params, self.names = [], [], []
        for group in entries:
            if not isinstance(group, dict) or "params" not in group:
                raise ValueError(
                    "if one entry is a group, all must be: dictionaries with 'params' and options; "
                    f"this is {group if isinstance(group, dict) else about(group)}"
                )
            if unknown := group.keys() - options.keys() - {"params"}:
                raise ValueError(f"unknown options {sorted(unknown)}; known are {sorted(options)}")
            params = group["params"]
            params = [params] if isinstance(params, Tensor) else _listed(params)
            first = len(self.params)
            for p in params:
                name, p = p if isinstance(p, tuple) and len(p) == 2 else (None, p)
                self.names.append(name or f"parameter {len(self.params)}")
                self.params.append(_trainable(self.names[-1], p))
            self.groups.append(options | group | {"params": self.params[first:]})
        if not self.params:
            raise ValueError("the optimizer was given no parameters")
        check_distinct(self.names, self.params)
        if not any(p.requires_grad for p in self.params):
            raise ValueError("an optimizer takes leaves that require gradients; none of these does")
        for group in self.groups:
            self.check_options(group)
        self.steps = 0
        self.updates = [0] * len(self.params)  # for each parameter, how many steps changed it
        self.scale = None  # what the next step multiplies gradients by, if they are clipped
        self.state = {slot: [] for slot in self.slots}
        for group in self.groups:
            for slot, arrays in self.state.items():
                more = {} if slot in self.slots_of(group) else {"shape": (0,)}
                arrays += [np.zeros_like(p.data, **more) for p in group["params"]]

    def slots_of(self, group: dict) -> tuple[str, ...]:
        """Those of `slots` that the parameters of a group have; the others are empty arrays."""
        return self.slots

    def check_options(self, group: dict) -> None:
        """Raise ValueError for an option of a group that is not a number or is out of range."""
        for name in group.keys() - {"params", "betas", "polynomials"}:
            check_range(name, group[name])

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Call loss.backward().

        `last` says that this completes the gradients of the step. It matters only in
        `parallel.Sharded`, which has the same interface.
        """
        loss.backward()

    def clip_grad_norm(self, max_norm: float, total=lambda square: square):
        """Clip the gradients of this optimizer's parameters; returns their norm before clipping.

        Unlike the function `clip_grad_norm`, this does not change the gradients: the next step
        scales each block of them while it is in the cache. If each worker holds a part of the
        gradients, `total` turns the sum of squares of this part into that of all parts. Raises
        ValueError if no parameter has a gradient, and for a negative `max_norm`.
        """
        square = sum_of_squares([p for p in self.params if p.requires_grad])
        norm = np.sqrt(np.asarray(total(square), dtype=square.dtype, like=square))
        self.scale = np.minimum(limit(max_norm) / (norm + 1e-6), 1)
        return norm

    def zero_grad(self) -> None:
        self.scale = None
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen, in place.

        Raises ValueError, and changes nothing, if a graph that is still alive needs a parameter, if
        a parameter, its gradient and its state differ in shape or device, and for options out of
        range.
        """
        if self.counts and is_capturing(self.params[0].data):
            raise RuntimeError(
                f"a step of {type(self).__name__} cannot be captured: it counts in Python, and the "
                "graph would repeat the same count"
            )
        ready, i = [], 0
        for group in self.groups:
            self.check_options(group)
            for p in group["params"]:
                grad = p.grad
                if grad is not None and p.requires_grad:
                    state = [self.state[slot][i] for slot in self.slots_of(group)]
                    self._check(i, p.data, grad.data, state)
                    ready.append((i, group, [p.data, grad.data, *state]))
                i += 1
        self.steps += 1
        for i, _, _ in ready:
            self.updates[i] += 1
        self.update_all(ready)
        self.scale = None

    def update_all(self, ready: list) -> None:
        """Update parameter after parameter: `ready` has (number, group, [p, gradient, *state])."""
        for i, group, arrays in ready:
            arrays = [a[None] if a.ndim == 0 else a for a in arrays]
            # All passes over one block, which fits the cache, come before the next block, so that
            # each array is read from memory and written to memory once.
            for block in row_blocks(arrays[0]):
                p_block, g, *state = (a[block] for a in arrays)
                g = g if self.scale is None else g * self.scale
                self.update(group, self.updates[i], p_block, g, *state)

    def _check(self, i: int, data, g, state: list) -> None:
        """Raise ValueError if the update of parameter number `i` would fail."""
        shape, kind = data.shape, type(data)
        for array in (g, *state):
            if array.shape != shape or (type(array) is not kind and not _together(array, data)):
                raise ValueError(
                    f"{self.names[i]} has the shape {shape}, but its gradient or the "
                    f"optimizer's state is of shape {array.shape} or on another device: make the "
                    "optimizer after the parameters are changed or moved"
                )
        if isinstance(data, np.ndarray):
            for array in (data, *state):
                if not array.flags.writeable:
                    check_writeable(self.names[i], array)

    @abstractmethod
    def update(self, group: dict, t: int, p, g, *state) -> None:
        """Update `p` in place from its gradient `g` and its slots, all arrays of a block of rows.

        `group` has the options. `t` is the number of updates of this parameter, including this one.
        """

    def state_dict(self) -> dict:
        """The state as a dictionary, without copies of the arrays.

        "steps" is the number of steps, "updates" (n,) has for each parameter the number of steps
        that changed it, and each slot, such as "m", has a list of one array per parameter.
        """
        return {"steps": self.steps, "updates": np.array(self.updates), **self.state}

    def load_state_dict(self, state: dict) -> None:
        """Copy the state from a dictionary such as `state_dict` returns.

        If it lacks "updates", every step counts as an update of every parameter. Raises ValueError
        or TypeError, and changes nothing, if the state does not fit the parameters.
        """
        self.steps, self.updates = load_state(state, self.state, self.names)


def check_distinct(names: Sequence[str], params: Sequence[Tensor]) -> None:
    """Raise ValueError for a parameter that is listed twice, since it would be updated twice."""
    first = {}
    for name, p in zip(names, params):
        if first.setdefault(p, name) is not name:
            raise ValueError(
                f"{first[p]} and {name} are one and the same tensor, which would be updated twice; "
                "give every parameter once, as Module.parameters() does"
            )


def load_state(state: dict, slots: dict[str, list], names: Sequence[str]) -> tuple[int, list[int]]:
    """Copy the arrays of an `Optimizer.state_dict` into those of `slots`; returns (steps, updates).

    Raises ValueError or TypeError, and copies nothing, if the state does not fit.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"an optimizer's state is a dictionary, not {about(state)}")
    if unknown := state.keys() - slots.keys() - {"steps", "updates"}:
        raise ValueError(f"this optimizer's state has {sorted(slots)}, not {sorted(unknown)}")
    steps = state.get("steps")
    updates = state.get("updates", [steps] * len(names))
    if len(updates) != len(names) or not all(_is_count(n) for n in (steps, *updates)):
        raise ValueError(
            f"the optimizer's 'steps' must be a count and its 'updates' a list of {len(names)} "
            f"counts, not {steps!r} and {updates!r}"
        )
    arrays = {}
    for slot, own in slots.items():
        given = state.get(slot, ())
        try:
            if len(given) != len(own):
                raise ValueError(f"it has {len(given)} arrays for {len(own)} parameters")
            arrays[slot] = [fitting(*trio) for trio in zip(names, own, given)]
        except (ValueError, TypeError) as error:
            raise type(error)(
                f"the optimizer's '{slot}' does not fit the parameters: {error}"
            ) from None
    for slot, own in slots.items():
        for mine, given in zip(own, arrays[slot]):
            mine[...] = np.asarray(given, like=mine)
    return int(steps), [int(n) for n in updates]


def _is_count(n) -> bool:
    return isinstance(n, (int, np.integer)) and n >= 0


def _trainable(name: str, p) -> Tensor:
    """Return `p`; raise TypeError or ValueError if an optimizer cannot update it."""
    if not isinstance(p, Tensor):
        raise TypeError(f"{name} is {about(p)}; an optimizer takes tensors")
    if p.node is not None:
        raise ValueError(f"{name} is the result of '{p.node.op}'; an optimizer takes leaves")
    if p.dtype.kind != "f":
        raise ValueError(f"{name} is of dtype {p.dtype}; an optimizer takes floating-point tensors")
    if p.dtype == np.float16:
        raise ValueError("updates are too small for float16: keep the parameters in float32")
    return p


def _together(a, b) -> bool:
    """Whether two arrays are both on the CPU or both on a GPU."""
    return isinstance(a, np.ndarray) == isinstance(b, np.ndarray)


def _listed(params) -> list:
    """The entries of a sequence of parameters or groups."""
    if isinstance(params, (Tensor, dict)) or not isinstance(params, Iterable):
        hint = ": pass .parameters()" if hasattr(params, "parameters") else ""
        raise TypeError(
            f"an optimizer takes a list of tensors or of groups, not {about(params)}{hint}"
        )
    return list(params)


def about(thing) -> str:
    """A description of an object, for error messages."""
    return f"an object of type {type(thing).__name__}"


def check_range(name: str, value, below: float = math.inf) -> None:
    """Raise ValueError unless 0 <= value < below."""
    is_number = isinstance(value, (Real, np.ndarray)) and not np.ndim(value)
    if not is_number or not 0 <= value < below:
        limit = "" if below == math.inf else f" and below {below}"
        raise ValueError(f"{name} is {value!r}; it must be a finite number, at least 0{limit}")
