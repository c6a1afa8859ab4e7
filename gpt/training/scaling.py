"""The scale of the loss in float16, whose smallest numbers are too large for some gradients.

The loss is multiplied by a scale, and the gradients are divided by it before the update. Where a
gradient overflows, the step is left out and the scale halved; after many steps without one it is
doubled (Micikevicius et al., 2017; the numbers are those of torch.amp.GradScaler).
"""

from __future__ import annotations

FIRST = 2.0**16
PATIENCE = 2000  # steps without overflow before the scale is doubled


class LossScale:
    """The scale in use; 1 and fixed where it is not `needed`."""

    def __init__(self, needed: bool):
        self.needed = needed
        self.value, self.good = FIRST if needed else 1.0, 0  # `good`: steps since it has changed

    def stepped(self, finite: bool) -> bool:
        """Count a step, whose gradients were `finite` or not; returns whether to leave it out.

        Raises FloatingPointError where no scale helps.
        """
        if finite or not self.needed:
            self.good += 1
            if self.needed and self.good == PATIENCE:
                self.value, self.good = self.value * 2, 0
            return False
        if self.value <= 1:
            raise FloatingPointError("gradients overflow float16 even without a scale")
        self.value, self.good = self.value / 2, 0
        return True

    def state(self) -> dict | None:
        return {"value": self.value, "good": self.good} if self.needed else None

    def load(self, state: dict | None) -> None:
        """Go on with a saved state, or begin where a run had none in its precision until now.

        Raises ValueError for what is no state.
        """
        if state is None:
            return
        given = state if isinstance(state, dict) else {}
        value, good = given.get("value"), given.get("good")
        if not (isinstance(value, float) and 0 < value < 2**100 and isinstance(good, int)):
            raise ValueError(f"a loss scale's state has a value and a count, not {state!r}")
        if self.needed:
            self.value, self.good = value, good
