"""A compact Llama decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, causal SDPA.

Parameter names and mathematics are those of ``transformers.LlamaForCausalLM``, so an export loads there unchanged. One
difference: norms and positions are computed in the model's own precision when that is float64 (there always float32).

Shape suffixes of tensors: B batch, T positions, D hidden, H query heads, G key/value heads, K width of a head,
F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.models.init import init_normal
from trainctl.parallel.plan.model_size import ffn_size, hf_shape, kv_head_count, shape_problems

INIT_STD = 0.02
_OUTPUT_PROJECTIONS = ("o_proj.weight", "down_proj.weight")  # they write into the residual stream, 2 per layer


class RMSNorm(nn.Module):
    """Scales each position to unit root mean square, then by a learned weight."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape and dtype as the input."""
        return functional.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


class RotaryTable(nn.Module):
    """Cosines and signed sines (T, K) of all positions, computed once; moves with the model, is not part of its state.

    Rotary embedding in the half-split layout: pair (i, i + K/2) is turned by ``position * theta^(-2i/K)``.
    Source: Su et al., RoFormer (2021), section 3.4.2; layout as in transformers.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, *, context: int, head_width: int, theta: float) -> None:
        super().__init__()
        exponent_K = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
        angle_TK = torch.outer(torch.arange(context, dtype=torch.float32), 1.0 / theta**exponent_K)
        self.register_buffer("cos", torch.cat((angle_TK.cos(), angle_TK.cos()), dim=-1), persistent=False)
        # The sign of the rotation sits in the table, so that turning needs a roll and no negation.
        self.register_buffer("sin", torch.cat((-angle_TK.sin(), angle_TK.sin()), dim=-1), persistent=False)

    def forward(self, x_BHTK: Tensor, positions_BT: Tensor | None) -> Tensor:
        """The heads, turned by their positions; None: 0..T-1."""
        length, width = x_BHTK.shape[-2:]
        cos, sin = self.cos[:length], self.sin[:length]  # (T, K)
        if positions_BT is not None:
            cos, sin = self.cos[positions_BT][:, None], self.sin[positions_BT][:, None]  # (B, 1, T, K)
        return torch.addcmul(x_BHTK * cos.to(x_BHTK.dtype), x_BHTK.roll(width // 2, dims=-1), sin.to(x_BHTK.dtype))


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the documents of packed rows are; None and None: each row is one document.

    Attributes:
        positions: within the document, int64 (B, T).
        mask: who attends to whom, bool (B, 1, T, T).
    """

    positions: Tensor | None = None
    mask: Tensor | None = None


WHOLE_ROWS = Packing()
"""Each row is one document."""


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share one key/value head."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.head_width = model.hidden // model.heads
        self.grouped = kv_head_count(model) != model.heads
        kv_hidden = kv_head_count(model) * self.head_width
        self.q_proj = nn.Linear(model.hidden, model.hidden, bias=False)
        self.k_proj = nn.Linear(model.hidden, kv_hidden, bias=False)
        self.v_proj = nn.Linear(model.hidden, kv_hidden, bias=False)
        self.o_proj = nn.Linear(model.hidden, model.hidden, bias=False)

    def forward(self, x_BTD: Tensor, rotary: RotaryTable, packing: Packing) -> Tensor:
        """Same shape as the input."""
        q_BHTK = rotary(self._heads(self.q_proj(x_BTD)), packing.positions)
        k_BGTK = rotary(self._heads(self.k_proj(x_BTD)), packing.positions)
        v_BGTK = self._heads(self.v_proj(x_BTD))
        y_BHTK = functional.scaled_dot_product_attention(
            q_BHTK,
            k_BGTK,
            v_BGTK,
            attn_mask=packing.mask,
            is_causal=packing.mask is None,
            enable_gqa=self.grouped,
        )
        y_BTD: Tensor = self.o_proj(y_BHTK.transpose(1, 2).flatten(2))
        return y_BTD

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer, GLU Variants Improve Transformer (2020), eq. 6."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(model.hidden, ffn_size(model), bias=False)
        self.up_proj = nn.Linear(model.hidden, ffn_size(model), bias=False)
        self.down_proj = nn.Linear(ffn_size(model), model.hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as the input."""
        y_BTD: Tensor = self.down_proj(functional.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(model.hidden, model.norm_eps)
        self.self_attn = Attention(model)
        self.post_attention_layernorm = RMSNorm(model.hidden, model.norm_eps)
        self.mlp = FeedForward(model)
        self.dropout = model.dropout

    def forward(self, x_BTD: Tensor, rotary: RotaryTable, packing: Packing) -> Tensor:
        """Same shape as the input."""
        x_BTD = x_BTD + self._drop(self.self_attn(self.input_layernorm(x_BTD), rotary, packing))
        return x_BTD + self._drop(self.mlp(self.post_attention_layernorm(x_BTD)))

    def _drop(self, x_BTD: Tensor) -> Tensor:
        return functional.dropout(x_BTD, self.dropout) if self.training and self.dropout else x_BTD


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, model: ModelSpec, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, model.hidden)
        self.layers = nn.ModuleList(DecoderLayer(model) for _ in range(model.layers))
        self.norm = RMSNorm(model.hidden, model.norm_eps)
        head_width = model.hidden // model.heads
        self.rotary = RotaryTable(context=model.context, head_width=head_width, theta=model.rope_theta)

    def forward(self, ids_BT: Tensor, packing: Packing) -> Tensor:
        """Hidden states of shape (B, T, D)."""
        x_BTD = self.embed_tokens(ids_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.rotary, packing)
        y_BTD: Tensor = self.norm(x_BTD)
        return y_BTD


class Llama(nn.Module):
    """The decoder with its output head.

    Weights depend on ``seed`` and the parameter names only. Dropout draws from torch's default generator: seed that.

    Raises:
        SpecError: the shape cannot be built; lists every problem.
    """

    def __init__(self, model: ModelSpec, vocab_size: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if problems := shape_problems(model):
            raise SpecError(problems, source="model")
        self.context = model.context
        self.model = Decoder(model, vocab_size)
        self.lm_head = nn.Linear(model.hidden, vocab_size, bias=False)
        if model.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        init_normal(self, seed=seed, std=self._init_std(model.layers))
        self.to(dtype)

    def _init_std(self, layers: int) -> dict[str, float]:
        """Output projections start smaller, so that the residual stream's variance does not grow with depth.

        Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 2.3.
        """
        scaled = INIT_STD / (2 * layers) ** 0.5
        matrices = [name for name, parameter in self.named_parameters() if parameter.dim() > 1]
        return {name: scaled if name.endswith(_OUTPUT_PROJECTIONS) else INIT_STD for name in matrices}

    def forward(self, ids_BT: Tensor, packing: Packing = WHOLE_ROWS) -> Tensor:
        """Logits of shape (B, T, V) for ids of shape (B, T), T at most the context."""
        logits_BTV: Tensor = self.lm_head(self.model(ids_BT, packing))
        return logits_BTV


def hf_config(model: ModelSpec, vocab_size: int) -> dict[str, Any]:
    """The ``config.json`` with which transformers builds the same model (dropout is ours alone: it is off there)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        **hf_shape(model),
        "head_dim": model.hidden // model.heads,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "initializer_range": INIT_STD,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        # Text is a plain stream of tokens: no id is special, and transformers' defaults 1 and 2 would cut texts short.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
