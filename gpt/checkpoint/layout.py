"""From the tensors and the settings in a published folder to those of a model, nothing ignored."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from .files import CONFIG, missing, read_json, write_json
from .tensors import DTYPES, FLOATS, TensorFiles

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # fields of a model's configuration

# Keys of a config.json that do not change what a model computes from ids.
HARMLESS = set(
    """
    model_type architectures transformers_version torch_dtype dtype use_cache initializer_range
    _name_or_path _commit_hash _attn_implementation attn_implementation pretraining_tp
    tokenizer_class task_specific_params id2label label2id num_labels problem_type
    finetuning_task n_ctx gradient_checkpointing summary_type summary_use_proj summary_activation
    summary_proj_to_labels summary_first_dropout attn_pdrop embd_pdrop resid_pdrop
    attention_dropout reorder_and_upcast_attn return_dict output_attentions
    output_hidden_states use_return_dict torchscript tie_encoder_decoder chunk_size_feed_forward
    sep_token_id decoder_start_token_id unk_token_id use_bfloat16 prefix is_decoder
    tf_legacy_loss truncation_side
    """.split()
) | set(TOKEN_IDS)
# Those of older files that are defaults for generation.
FOR_GENERATION = set(
    """
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    """.split()
)
NOTHING = (None, False, {}, [], 0)  # values with which a key that is not known says nothing
QUANTIZATION = "quantization_config"  # what config.json says of weights in few bits
OURS = "tensorlite"  # the quant_method of those that gpt.export writes
GROUPS = {8: (None,), 4: (32, 64)}  # the sizes of groups that there are for so many bits


def model_type(directory: str | Path) -> str | None:
    """What the config.json of a folder says the model is. Raises as `read_settings` does."""
    return read_json(_config(directory)).get("model_type")


def _config(directory: str | Path) -> Path:
    path = Path(directory) / CONFIG
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if not path.exists():
        raise missing(path)
    return path


def read_settings(directory: str | Path, families: Collection[str]) -> dict:
    """The config.json of a folder, the token ids of its generation_config.json among them.

    `generation` holds what that file says besides. Raises FileNotFoundError where there is no
    model, ValueError for one that is of none of these families, or in another form.
    """
    path = _config(directory)
    raw = read_json(path)
    kind = raw.get("model_type")
    if kind not in families:
        known = ", ".join(map(repr, families))
        raise ValueError(f"{path} describes a model of type {kind!r}; only {known} can be loaded")
    read_quantization(directory)
    generation = {name: raw.pop(name) for name in FOR_GENERATION & raw.keys()}
    beside = path.with_name(GENERATION)  # which counts first for transformers
    if beside.exists():
        generation = read_json(beside)
        raw |= {n: i for n, i in generation.items() if n in TOKEN_IDS and i is not None}
    for name in TOKEN_IDS:
        generation.pop(name, None)
        check_ids(path, name, raw.get(name))
        if isinstance(raw.get(name), list):
            raw[name] = tuple(raw[name])
    generation.pop("transformers_version", None)
    generation.pop("_from_model_config", None)
    raw["generation"] = generation
    return raw


def read_quantization(directory: str | Path) -> tuple[int, int | None] | None:
    """(bits, group_size) of weights in few bits that gpt.export has written, None for others.

    Raises as `read_settings` does, and ValueError for what other programs have quantised.
    """
    path = _config(directory)
    said = read_json(path).get(QUANTIZATION)
    if said in NOTHING:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else said
    if method != OURS:
        raise ValueError(
            f"{path}: the weights are quantised by {method!r}, which is not supported. Take an "
            "edition of the model in float32, float16 or bfloat16; python -m gpt.export quantises "
            "it to 8 or 4 bits"
        )
    bits, size = said.get("bits"), said.get("group_size")
    check_bits(bits, size)
    return bits, size


def check_bits(bits: int, group_size: int | None) -> None:
    """Raise ValueError unless there are quantised weights of so many bits in such groups."""
    if type(bits) is not int or bits not in GROUPS:
        raise ValueError(f"weights are quantised to 8 or 4 bits, not {bits!r}")
    if group_size not in GROUPS[bits]:
        sizes = " or ".join(map(str, GROUPS[bits]))
        raise ValueError(f"the group_size of {bits} bits is {sizes}, not {group_size!r}")


def check_ids(path: Path, name: str, ids: object) -> None:
    several = ids if isinstance(ids, list) and name == "eos_token_id" else [ids]
    if ids is not None and not all(type(i) is int and i >= -1 for i in several):
        raise ValueError(f"{path}: {name} is a token id, not {ids!r}")


def check_keys(path: Path, raw: dict, known: Collection[str], only: dict[str, tuple]) -> None:
    """Raise ValueError for a setting that would be ignored though it changes what is computed.

    `known` are the keys that the caller reads, `only` those that must have one of these values
    where they are there (the first value is what counts where they are not).
    """
    for key, values in only.items():
        if raw.get(key, values[0]) not in values:
            raise ValueError(
                f"{path}: {key} {raw[key]!r} is not supported, only {values[0]!r}; with it, the "
                "model would compute something else"
            )
    rest = raw.keys() - HARMLESS - set(known) - only.keys() - {"generation", QUANTIZATION}
    unknown = sorted(key for key in rest if raw[key] not in NOTHING)
    if unknown:
        said = ", ".join(f"{key} {raw[key]!r}"[:60] for key in unknown[:5])
        raise ValueError(
            f"{path} says {said}, which is not supported: if it were ignored, the model might "
            "compute something else than its authors' program. If you know that it does not "
            "matter, delete it from the file"
        )


def write_settings(directory: Path, settings: dict, config) -> None:
    """Write config.json, and generation_config.json where there are defaults for generation."""
    ids = {name: getattr(config, name) for name in TOKEN_IDS}
    write_json(directory / CONFIG, settings | ids)
    beside = directory / GENERATION
    if config.generation:
        said = {name: i for name, i in ids.items() if i is not None}
        write_json(beside, dict(config.generation) | said)
    else:
        beside.unlink(missing_ok=True)


class Tensors:
    """The tensors of a folder under the names that a model's `published` gives its parameters."""

    def __init__(self, files: TensorFiles, path: Path, name_of: Callable[[str], str] = str):
        self.files, self.path = files, path
        self.theirs: dict[str, str] = {}  # our name -> theirs
        for name in files.names:
            if (ours := name_of(name)) in self.theirs:
                raise ValueError(f"{path} holds {ours} twice, also as {name}")
            self.theirs[ours] = name

    def __contains__(self, name: str) -> bool:
        return name in self.theirs

    def drop(self, *names: str) -> None:
        """Take these as known and not needed."""
        for name in names:
            self.theirs.pop(name, None)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.files.shape(self.theirs[name])

    def read(self, name: str) -> np.ndarray:
        return self.files.read(self.theirs[name])

    def tie(self, tied: bool, head: str, embedding: str) -> None:
        """Where the output projection is the token embedding, take one matrix of these names.

        Raises ValueError where there are two that differ.
        """
        if not tied or head not in self.theirs:
            return
        if embedding in self.theirs and not np.array_equal(self.read(head), self.read(embedding)):
            raise ValueError(
                f"{self.path}: {head} is another matrix than {embedding}, though "
                f"tie_word_embeddings in {CONFIG} is true"
            )
        self.theirs.setdefault(embedding, self.theirs[head])  # a file may hold it under either
        self.drop(head)

    def check(self, arrays: dict[str, np.ndarray]) -> None:
        """Raise ValueError unless the tensors are those of these names, shapes and types."""
        faults = []
        types = {self.files.dtype(name) for name in self.theirs.values()}
        if all(array.dtype == np.float32 for array in arrays.values()):
            if read_quantization(self.path):
                raise ValueError(
                    f"{self.path} holds quantised weights: gpt.load opens it, to generate and to "
                    "evaluate. To train, take the folder that it was made from"
                )
            if others := types - FLOATS.keys():
                faults.append(f"it holds numbers of type {', '.join(sorted(others))}, not floats")
        if lost := arrays.keys() - self.theirs.keys():
            faults.append(f"{len(lost)} tensors are missing: {_first(lost)}")
        if more := self.theirs.keys() - arrays.keys():
            faults.append(f"{len(more)} tensors are not the model's: {_first(more)}")
        for name in sorted(arrays.keys() & self.theirs.keys()):
            shape, kind = self.files.shape(self.theirs[name]), self.files.dtype(self.theirs[name])
            if shape != arrays[name].shape:
                faults.append(f"{name} is {shape}, not {arrays[name].shape}")
            elif kind not in FLOATS and DTYPES.get(kind) != arrays[name].dtype:
                faults.append(f"{name} holds numbers of type {kind}")
        if faults:
            more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise ValueError(
                f"{self.path} does not fit its {CONFIG}: {'; '.join(faults[:5])}{more}"
            )

    def read_into(self, arrays: dict[str, np.ndarray]) -> None:
        """Read every tensor into the array of its name, one after another. Raises as `check`."""
        self.check(arrays)
        for name, array in arrays.items():
            self.files.read(self.theirs[name], array)


def _first(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
