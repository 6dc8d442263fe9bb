"""The built-in decoder's shape as numbers: defaults resolved, parameters counted; without torch."""

from __future__ import annotations

from trainctl.core.errors import Problem
from trainctl.core.records.spec import ModelSpec

_FFN_MULTIPLE = 64


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


def shape_problems(model: ModelSpec, *, path: str = "spec.train.model") -> tuple[Problem, ...]:
    """Everything that makes this shape impossible to build; empty if it can be built."""
    problems = []

    def expect(ok: bool, name: str, message: str) -> None:
        if not ok:
            problems.append(Problem(path=f"{path}.{name}", message=message))

    expect(model.layers >= 1, "layers", f"expected at least 1, found {model.layers}")
    expect(model.hidden >= 1, "hidden", f"expected at least 1, found {model.hidden}")
    expect(model.heads >= 1, "heads", f"expected at least 1, found {model.heads}")
    expect(model.context >= 2, "context", f"expected at least 2 tokens, found {model.context}")
    expect(model.ffn >= 0, "ffn", f"expected 0 (automatic) or more, found {model.ffn}")
    expect(model.rope_theta > 0, "ropeTheta", f"expected more than 0, found {model.rope_theta}")
    expect(0 <= model.dropout < 1, "dropout", f"expected 0 <= dropout < 1, found {model.dropout}")
    if model.heads >= 1 and model.hidden >= 1:
        even = model.hidden % model.heads == 0 and model.hidden // model.heads % 2 == 0
        text = f"expected a divisor of hidden={model.hidden} with an even quotient (rotary pairs), found {model.heads}"
        expect(even, "heads", text)
    if model.heads >= 1:
        divides = model.kv_heads >= 0 and model.heads % (model.kv_heads or model.heads) == 0
        expect(divides, "kvHeads", f"expected 0 or a divisor of heads={model.heads}, found {model.kv_heads}")
    return tuple(problems)
