"""The built-in decoder's shape as numbers: defaults resolved, limits, parameters counted; without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from trainctl.core.errors import Problem
from trainctl.core.records.train_spec import ModelSpec

_FFN_MULTIPLE = 64
MAX_PARAMETERS = 10**13
"""More is a slip of the pen: the largest models known have about a tenth of it."""


def ffn_size(model: ModelSpec) -> int:
    """Width of the feed-forward layer: as written, or 8/3 of ``hidden`` rounded up to a multiple of 64."""
    return model.ffn or -(-8 * model.hidden // (3 * _FFN_MULTIPLE)) * _FFN_MULTIPLE


def kv_head_count(model: ModelSpec) -> int:
    """Number of key and value heads: as written, or one per query head."""
    return model.kv_heads or model.heads


def llama_parameters(model: ModelSpec, vocab_size: int) -> int:
    """Number of trainable parameters; a tied output matrix counts once."""
    kv_width = model.hidden // model.heads * kv_head_count(model)
    attention = 2 * model.hidden * model.hidden + 2 * model.hidden * kv_width
    feed_forward = 3 * model.hidden * ffn_size(model)
    norms = 2 * model.hidden
    embeddings = (1 if model.tie_embeddings else 2) * vocab_size * model.hidden
    return model.layers * (attention + feed_forward + norms) + embeddings + model.hidden


def hf_shape(model: ModelSpec) -> dict[str, int | float | bool]:
    """What of the Hugging Face ``config.json`` decides what the parameters mean, but for the vocabulary."""
    return {
        "hidden_size": model.hidden,
        "intermediate_size": ffn_size(model),
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": kv_head_count(model),
        "tie_word_embeddings": model.tie_embeddings,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
    }


SHAPE_FIELDS: Mapping[str, str] = {
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kvHeads",
    "tie_word_embeddings": "tieEmbeddings",
    "rms_norm_eps": "normEps",
    "rope_theta": "ropeTheta",
}
"""Names in ``hf_shape`` to names in the job file."""


def shape_problems(model: ModelSpec, *, path: str = "spec.train.model") -> tuple[Problem, ...]:
    """Everything that makes this shape impossible to build; empty if it can be built."""
    found = [*_ranges(model), *_fits(model)]
    count = 0 if found else llama_parameters(model, 0)
    if count > MAX_PARAMETERS:
        found.append(("layers", f"this model has {count:.2g} parameters; expected at most {MAX_PARAMETERS:.0g}"))
    return tuple(Problem(path=f"{path}.{name}", message=message) for name, message in found)


def _ranges(model: ModelSpec) -> Iterator[tuple[str, str]]:
    least = {
        "layers": (model.layers, 1),
        "hidden": (model.hidden, 1),
        "heads": (model.heads, 1),
        "context": (model.context, 2),
        "kvHeads": (model.kv_heads, 0),
        "ffn": (model.ffn, 0),
    }
    for name, (value, low) in least.items():
        if value < low:
            yield name, f"expected at least {low}, found {value}"
    if not 0 < model.rope_theta < math.inf:
        yield "ropeTheta", f"expected a number greater than 0 and finite, found {model.rope_theta:g}"
    if not 0 < model.norm_eps < 1:
        yield "normEps", f"expected a number greater than 0 and less than 1, found {model.norm_eps:g}"
    if not 0 <= model.dropout < 1:
        yield "dropout", f"expected a number at least 0 and less than 1, found {model.dropout:g}"


def _fits(model: ModelSpec) -> Iterator[tuple[str, str]]:
    if model.heads < 1 or model.hidden < 1:
        return
    if model.hidden % model.heads:
        yield "hidden", f"{model.hidden} is not a multiple of heads ({model.heads})"
    elif (model.hidden // model.heads) % 2:
        yield "hidden", f"hidden / heads is {model.hidden // model.heads}; rotary embeddings need an even number"
    if model.kv_heads > 0 and model.heads % model.kv_heads:
        yield "kvHeads", f"heads ({model.heads}) is not a multiple of kvHeads ({model.kv_heads})"
