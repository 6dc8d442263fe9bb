"""Text from an exported model, by transformers alone: ``python -m trainctl.parallel.generate FOLDER --prompt TEXT``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from trainctl.core.errors import PreconditionError, TrainctlError


def generate_text(folder: Path, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
    """The prompt and what the model makes of it.

    Args:
        folder: what ``trainctl checkpoints export`` wrote.
        prompt: not empty.
        tokens: how many to add.
        temperature: 0 takes the likeliest token each time.
        seed: of the sampling.

    Raises:
        PreconditionError: transformers is not installed, or the folder is not a model.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        hint = "pip install 'trainctl-orchestrator[demo]'"
        raise PreconditionError("generating text needs transformers, which is not installed", hint=hint) from error
    if not (folder / "config.json").exists():
        raise PreconditionError(f"{folder} holds no config.json", hint="write it with: trainctl checkpoints export")
    tokenizers: Any = AutoTokenizer  # of neither it is known before what its methods return
    models: Any = AutoModelForCausalLM
    tokenizer = tokenizers.from_pretrained(folder)
    model = models.from_pretrained(folder)
    model.eval()
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  (torch gives its parameter no type)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    room = model.config.max_position_embeddings - ids.shape[1]
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 50} if temperature > 0 else {"do_sample": False}
    out = model.generate(ids, max_new_tokens=min(tokens, room), pad_token_id=0, **sampling)
    return str(tokenizer.decode(out[0]))


def main() -> int:
    """Command line of this module; prints the text."""
    parser = argparse.ArgumentParser(prog="trainctl.parallel.generate", description="Text from an exported model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default="def ")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        print(
            generate_text(
                options.folder,
                options.prompt,
                tokens=options.tokens,
                temperature=options.temperature,
                seed=options.seed,
            )
        )
    except TrainctlError as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
