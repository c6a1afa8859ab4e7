"""How good is a model? Measures of it, on data that it was not trained on.

`python -m gpt.evaluate` measures models in folders. Read estimate.py (how sure a figure is),
likelihood.py (how likely texts are) and perplexity.py, choices.py and answers.py, which measure;
then suite.py, and contamination.py and memorisation.py, which ask what the training text tells.
report.py shows the results; harness.py lets lm-eval measure. During training, loss.py is used;
logprobs.py has gradients; classes.py is about classifiers.
"""

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
