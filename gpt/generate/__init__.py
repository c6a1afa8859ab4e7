"""Text from a model: `generate` gives it whole, `stream` piece by piece as it is drawn."""

from .loop import generate, stream
from .sampling import keep_top_k, keep_top_p, next_token, penalise
