"""How good is a model? Measures of it, on data that it was not trained on."""

from .class_pictures import draw_class_report
from .classes import ClassReport, measure_classes
from .logprobs import sequence_logprobs, token_logprobs
from .loss import (
    AT_A_TIME,
    bits_per_byte,
    duration,
    estimate_loss,
    full_loss,
    holds_unknown,
    loss_and_error,
)
