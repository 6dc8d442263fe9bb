"""How large a job's state is, from its spec alone: enough to predict the cost of a copy."""

from __future__ import annotations

from trainctl.core.records.spec import TrainSpec

STATE_KINDS = ("param", "exp_avg", "exp_avg_sq")
"""What each parameter drags along with AdamW, all in the same dtype."""


def feed_forward(hidden: int, ffn: int) -> int:
    """Width of the feed-forward layer: given, or 8/3 of ``hidden`` rounded up to a multiple of 64."""
    return ffn or -(-(8 * hidden // 3) // 64) * 64


def parameter_count(train: TrainSpec) -> int:
    """Parameters of the built-in decoder of this shape."""
    model = train.model
    kv = (model.kv_heads or model.heads) * (model.hidden // max(1, model.heads))
    attention = 2 * model.hidden * model.hidden + 2 * model.hidden * kv
    mlp = 3 * model.hidden * feed_forward(model.hidden, model.ffn)
    embeddings = train.tokenizer.vocab_size * model.hidden * (1 if model.tie_embeddings else 2)
    return embeddings + model.layers * (attention + mlp + 2 * model.hidden) + model.hidden


def state_dtype(train: TrainSpec) -> str:
    """Dtype of the master state, by its safetensors name."""
    return "F64" if train.precision == "float64" else "F32"
