"""A step of training on a GPU: recorded once as a CUDA graph, and replayed.

A step launches the same kernels every time, and a launch from Python takes longer than a small
kernel does. So Python runs twice to warm up and once while CUDA records, and never again: a replay
sends all that was recorded to the GPU at once. What changes from step to step lies in memory of the
GPU at fixed addresses, and is copied there before the replay: the tokens, the key of the random
numbers, the learning rate. One wait a step reads the loss and the gradient's norm.

`train_step` in loop.py is the same step for a CPU, in plain words.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import RowRandom, place
from tensorlite.kernels import cublaslt, precision
from tensorlite.kernels.launch import contiguous
from tensorlite.kernels.update import Table, adamw, adamw_settings, cast_all, sum_of_squares
from tensorlite.optim import AdamW
from tensorlite.parallel import ALONE, Team

from .optimizer import learning_rate
from .scaling import LossScale
from .settings import RunSettings
from .task import FixedTask


class GPUStep:
    """The steps of a run on one GPU: `step(number)` returns what `train_step` does.

    The batches of `task` all have one shape. The gradients of the batches of a step are added up
    in memory that belongs to the graph; the state of `optimizer` is updated in place. `state` is
    what `state()` has given before a run was stopped. A `team` of several ranks has a GPU each and
    a `Replicated` optimizer, and the batch size is a multiple of its size.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: AdamW,
        task: FixedTask,
        settings: RunSettings,
        state: dict | None = None,
        team: Team = ALONE,
    ):
        self.model, self.optimizer, self.task, self.settings = model, optimizer, task, settings
        self.team = team
        self.scale = LossScale(settings.precision == "float16")
        if state is not None:
            self.load_state(state)
        self.params = optimizer.params
        weights = [p.data for p in self.params]
        self.copied = []  # the weights that products read, with their copies in 16 bits
        if settings.precision in ("bfloat16", "float16"):
            dtype = precision.low_dtype(settings.precision)
            self.copied = [(w, np.empty_like(w, dtype=dtype)) for w in weights]
        copy_of = {id(w): copy for w, copy in self.copied}
        groups = [i for i, group in enumerate(optimizer.groups) for _ in group["params"]]
        m, v = optimizer.state["m"], optimizer.state["v"]
        copies = [copy_of.get(id(w)) for w in weights]
        self.table = Table(weights, None, m, v, copies, groups)
        cast_all(self.table)
        self.gradients = []
        self.result = np.zeros_like(weights[0], shape=(2,))  # the loss; the squared norm
        self.drawn = None, None  # number of a step, and its batches
        several = settings.gradient_accumulation_steps > 1 or team.size > 1
        self.functions = [self.first, self.more, self.last] if several else [self.whole]
        self.compiled = settings.compile and cublaslt.library() is not None
        self.recorded = None  # the functions as they are called, once it is known how

    def __enter__(self) -> GPUStep:
        """From now on the model is measured by replays too, with the copies of its weights."""
        self.model.replay = Replays(self.measure) if self.compiled else None
        return self

    def __exit__(self, *exception) -> None:
        self.model.replay = None  # whoever changes the weights now knows nothing of the copies

    def __call__(self, step: int) -> tuple[float, float] | None:
        """One update: (mean loss before it, the gradient's norm before clipping).

        None where gradients have overflowed float16 and the update was left out. Raises
        FloatingPointError, and changes nothing, when loss or norm is infinite or not a number.
        """
        loss, norm = self.run(step, self.update_settings(step))
        if self.scale.stepped(math.isfinite(norm)):
            return None
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(f"the loss is {loss}, the gradient's norm {norm}")
        self.optimizer.steps += 1
        changed = [g is not None for g in self.gradients]
        self.optimizer.updates = [n + c for n, c in zip(self.optimizer.updates, changed)]
        return loss, norm

    def check(self, step: int) -> None:
        """Raise FloatingPointError where the loss or the gradients of a step are not finite.

        The first time this records the step. Raises CannotCompile for a kernel of it.
        """
        loss, norm = self.run(step, np.full_like(self.update_settings(step), math.nan))
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.scale.needed)):
            raise FloatingPointError(f"the loss is {loss}, the gradient's norm {norm}")

    def run(self, step: int, update) -> tuple[float, float]:
        """Loss and norm of a step, with an update as `update` says: if it is NaN, none."""
        if self.drawn[0] != step:
            self.drawn = step, self.draw(step)
        _, batches = self.drawn
        n = len(batches) * self.team.size  # the mean loss of each is a part of the step's
        start = np.array(self.scale.value / n, np.float32)  # the gradient of the loss
        if self.recorded is None:
            self.record((*batches[0], start), update)
        if len(self.recorded) == 1:
            self.recorded[0](*batches[0], start, update)
        else:
            first, more, last = self.recorded
            for i, batch in enumerate(batches):
                (more if i else first)(*batch, start)
            if self.team.size > 1:
                self.optimizer.add_up([*self.gradients, self.result[:1]])
            last(update)
        self.drawn = step + 1, self.draw(step + 1)  # while the GPU is busy
        loss, square = self.result.tolist()
        return loss / n, math.sqrt(square) / self.scale.value

    def record(self, batch: tuple, update) -> None:
        """Let CUDA record what each function launches, where that is possible and wanted."""
        cublaslt.choose(True)  # the fastest way to compute each product is found while warming up
        if self.compiled:
            update = np.full_like(update, math.nan)  # what warms up updates nothing
            given = [batch, batch, (update,)] if len(self.functions) > 1 else [(*batch, update)]
            self.recorded = [tl.cuda.capture(function) for function in self.functions]
            try:
                for function, inputs in zip(self.recorded, given):
                    function.record(*inputs)
            except RuntimeError as error:
                self.compiled, self.model.replay = False, None
                warnings.warn(f"each kernel is launched by Python: {error}", stacklevel=1)
        if self.compiled:
            self.table.fill(self.gradients)  # which are at their last addresses now
        else:
            self.recorded = [_on_device(function) for function in self.functions]

    def draw(self, step: int) -> list[tuple[np.ndarray, ...]]:
        """The batches of a step, each as the arrays that the GPU needs of it."""
        s, team = self.settings, self.team
        examples = self.task.batch(step, self.model, team)
        share, size = team.share(len(examples)), s.batch_size // team.size
        key = RowRandom(s.seed, "dropout", step, rows=()).key
        batches = []
        for first in range(share.start, share.stop, size):
            rows = np.arange(first, first + size)
            batches.append((*self.task.arrays(examples[rows[0] : rows[-1] + 1]), key, rows))
        return batches

    def state(self) -> dict:
        """What a resumed run needs besides weights and optimizer, as numbers and texts."""
        return {"loss_scale": self.scale.state(), "products": cublaslt.chosen()}

    def load_state(self, state: dict) -> None:
        """Go on with a saved state. Raises ValueError for what is none."""
        self.scale.load(state.get("loss_scale"))
        if not cublaslt.restore(state.get("products")):
            print("on another card, or with another cuBLAS, the last bits of products may differ")

    def update_settings(self, step: int) -> np.ndarray:
        """What the update kernel is told of each group of parameters."""
        s, t = self.settings, max(self.optimizer.updates) + 1
        rows = []
        for group in self.optimizer.groups:
            group["lr"] = learning_rate(s, step)
            options = (group[name] for name in ("lr", "betas", "eps", "weight_decay"))
            rows.append(adamw_settings(t, *options, s.grad_clip or math.inf, self.scale.value))
        return np.stack(rows)

    # ---- what the GPU does: all that these functions launch is recorded --------------------------

    def whole(self, x, y, key, rows, start, update):
        """A step of one batch: x and y (B, T), rows (B,)."""
        self.first(x, y, key, rows, start)
        self.last(update)

    def first(self, x, y, key, rows, start):
        self.gradients = [None] * len(self.params)
        self.result[0] = self.add_gradients(x, y, key, rows, start)

    def more(self, x, y, key, rows, start):
        self.result[0] += self.add_gradients(x, y, key, rows, start)

    def measure(self, x, y):
        """The loss on a batch of held-out examples."""
        with precision.copies(self.copied):
            return self.model.loss(x, y)

    def last(self, update):
        if not self.compiled:
            self.table.fill(self.gradients)
        square = sum_of_squares(self.table) + 0 * self.result[:1]  # a loss that is NaN counts too
        self.result[1:] = square
        adamw(self.table, update, square)

    def add_gradients(self, x, y, key, rows, start):
        """Add the gradients of a batch to those of the step; returns its loss, 0-d."""
        number = {p: i for i, p in enumerate(self.params)}

        def collect(p, g):
            i = number[p]
            if self.gradients[i] is None:
                self.gradients[i] = contiguous(g)
            else:
                self.gradients[i] += g

        rng = RowRandom.keyed(key, rows) if self.settings.dropout else None
        with precision.copies(self.copied):
            loss = self.task.loss_of(self.model, x, y, rng)
            loss.backward(gradient=start, ready=collect)
        return loss.data


class Replays:
    """A function of arrays: captured for each shape with which it is called twice."""

    def __init__(self, function: Callable):
        self.function, self.captured = function, {}

    def __call__(self, *inputs):
        shapes = tuple(a.shape for a in inputs)
        if shapes not in self.captured:
            self.captured[shapes] = None
            return _on_device(self.function)(*inputs)
        if self.captured[shapes] is None:
            self.captured[shapes] = tl.cuda.capture(self.function)
        return self.captured[shapes](*inputs)


def _on_device(function: Callable) -> Callable:
    """`function`, given copies on the GPU of the arrays that the result is given."""
    return lambda *inputs: function(*(place(a, "cuda") for a in inputs))
