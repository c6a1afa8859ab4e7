"""From a conversation to one text: chat templates, which are written in the language of Jinja.

A template comes with a tokenizer, often from a stranger's folder, and is a program. So it runs in
Jinja's sandbox, set up as transformers does (chat_template_utils.py), whose templates then give the
same text. (One thing the sandbox cannot stop is a template that runs forever.)

`TEMPLATES` has three to train with. Alpaca's is Taori et al.'s (2023,
https://github.com/tatsu-lab/stanford_alpaca), which is plain text: it needs no token but the one
that ends an answer. ChatML's (OpenAI, 2023) and Llama 3's mark each turn by special tokens.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

INPUT = "\n\n### Input:\n"  # in a user's words, between an instruction and what it is about

ALPACA = r"""
{%- set first = messages[0]['content'] %}
{%- if messages[0]['role'] == 'system' %}
{{- first }}
{%- elif '\n\n### Input:\n' in first %}
{{- 'Below is an instruction that describes a task, paired with an input that provides further ' }}
{{- 'context. Write a response that appropriately completes the request.' }}
{%- else %}
{{- 'Below is an instruction that describes a task. ' }}
{{- 'Write a response that appropriately completes the request.' }}
{%- endif %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- '\n\n### Instruction:\n' + message['content'] }}
{%- elif message['role'] == 'assistant' %}
{{- '\n\n### Response:' + message['content'] + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '\n\n### Response:' }}
{%- endif %}"""

CHATML = r"""
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}"""

LLAMA3 = r"""
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

TEMPLATES = {"alpaca": ALPACA, "chatml": CHATML, "llama3": LLAMA3}


class Needs(NamedTuple):
    """The special tokens that one of the templates above needs."""

    tokens: tuple[str, ...] = ()
    eos: str | None = None  # the one that ends an answer; None: the tokenizer's own
    bos: str | None = None  # the one that begins a text, where the tokenizer has none


NEEDS = {
    "alpaca": Needs(),
    "chatml": Needs(("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"),
    "llama3": Needs(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        eos="<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
}


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = False,
    **tokens: str,
) -> str:
    """The text that a template makes of messages; `tokens` are the names that it may use.

    With `add_generation_prompt` it ends where an answer is to begin. Raises ValueError for a
    template that is no Jinja, or that fails (some refuse conversations by an error of their own),
    and ImportError where Jinja is missing.
    """
    compiled = compile_template(template)
    given = dict(messages=[dict(m) for m in messages], tools=None, documents=None, **tokens)
    try:
        return compiled.render(**given, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # a template is a program: it may fail in any way
        raise ValueError(f"the chat template fails on this conversation: {error}") from None


@functools.lru_cache
def compile_template(template: str):
    """The template, ready to render. Raises ValueError and ImportError as `render` does."""
    try:
        import jinja2
        from jinja2 import ext, nodes, sandbox
    except ImportError:
        raise ImportError("chat templates need Jinja: pip install 'tensorlite[chat]'") from None

    class Generation(ext.Extension):
        """{% generation %}...{% endgeneration %}: what it encloses is rendered as it is."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        how = dict(indent=indent, separators=separators, sort_keys=sort_keys)
        return json.dumps(x, ensure_ascii=ensure_ascii, **how)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson  # Jinja's own escapes the signs of HTML
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"the chat template is not Jinja: {error}") from None
