"""Tiny models of transformers as folders: ``config.json``, and weights where they are wanted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_COMMON = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 256,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "n_layer": 2,
        "n_embd": 32,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "llama": {"model_type": "llama", **_GROUPED},
    "qwen3": {"model_type": "qwen3", **_GROUPED, "head_dim": 8, "tie_word_embeddings": True},
    "gemma": {"model_type": "gemma", **_GROUPED, "head_dim": 8},
    "mistral": {"model_type": "mistral", **_GROUPED, "sliding_window": 8},
    "opt": {
        "model_type": "opt",
        **{name: value for name, value in _COMMON.items() if name != "intermediate_size"},
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "dropout": 0.0,
    },
    "gpt_neox": {"model_type": "gpt_neox", **_COMMON},
    "mixtral": {"model_type": "mixtral", **_GROUPED, "num_local_experts": 4},
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        **_COMMON,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 16,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}
"""Of several families: learned and rotary positions, tied and untied, grouped heads, sliding windows, experts."""


def write_config(folder: Path, kind: str, **changes: Any) -> Path:
    """A folder with a ``config.json`` only."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[kind], **changes}))
    return folder


def write_model(folder: Path, kind: str, *, seed: int = 7, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A folder as ``save_pretrained`` leaves it; returns the model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    make: Any = AutoModelForCausalLM

    settings = dict(CONFIGS[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = make.from_config(config, dtype=dtype)
        model.save_pretrained(folder, **more)
    return model.eval()


def load(folder: Path) -> Any:
    """The model of a folder as transformers loads it, with nothing missing."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    """Of a few fixed tokens."""
    ids = torch.arange(24).reshape(2, 12) % 256
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def write_corpus(folder: Path) -> str:
    """Four small text files; the path of their folder."""
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.txt").write_text(f"{index} the quick brown fox jumps over the lazy dog\n" * 30)
    return str(folder)
