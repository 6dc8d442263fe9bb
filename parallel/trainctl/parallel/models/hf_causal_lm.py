"""Causal language models of transformers, built from a folder; nothing is downloaded, and no code of others is run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch

from trainctl.core.errors import CheckpointError, Problem, SpecError
from trainctl.parallel.models.hf_folder import FOLDER_HINT, PATH, HfFolder
from trainctl.parallel.replica.generators import seed_generators

_OVERRIDES = "spec.train.model.overrides"
_PIP = "pip install 'trainctl-orchestrator[hf]'"
_PROBE = 8
_ROUNDING = 1e-4
_LISTED = 5


def build_model(folder: HfFolder, overrides: Mapping[str, Any], *, seed: int, dtype: torch.dtype) -> Any:
    """A ``PreTrainedModel`` in training mode on the CPU: with the folder's weights, or random ones out of the seed.

    Weights are read or drawn in float32 and then cast, so that all precisions start from the same model.

    Raises:
        SpecError: transformers is missing or knows no such causal model, or ``overrides`` do not fit it.
        CheckpointError: the weights are damaged, or are not those of this model.
    """
    transformers = _transformers()
    config = _config(transformers, folder, overrides)
    seed_generators(seed)
    try:
        if folder.weight_files:
            model = _load(transformers, folder, config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, ImportError, AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise _wrong(PATH, f"{config.model_type} cannot be built from {folder.path}: {error}") from error
    try:
        causal = _is_causal(model.to(dtype))
    except RuntimeError as error:
        raise _wrong("spec.train.precision", f"{config.model_type} does not compute in {dtype}: {error}") from error
    if not causal:
        raise _wrong(PATH, f"{config.model_type} is no causal language model: a token sees those that come after it")
    return model.train()


def documents_are_apart(model: Any) -> bool:
    """Whether positions that begin anew keep what stands before out of sight."""
    positions = torch.arange(2 * _PROBE) % _PROBE
    return not _sees(model, changed=0, at=slice(_PROBE, None), position_ids=positions[None])


def _is_causal(model: Any) -> bool:
    return not _sees(model, changed=_PROBE - 1, at=slice(0, _PROBE - 1))


@torch.no_grad()
def _sees(model: Any, *, changed: int, at: slice, **more: torch.Tensor) -> bool:
    """Whether the logits of some positions change with the token at another, by more than rounding explains.

    Experts compute their tokens together: what one of them is changes how the sums of the others are rounded.
    """
    length = max(_PROBE, *(value.shape[1] for value in more.values())) if more else _PROBE
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(length)[None] % vocabulary
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % vocabulary
    was_training = model.training
    model.eval()
    one, two = (model(input_ids=tokens, use_cache=False, **more).logits[0] for tokens in (ids, other))
    model.train(was_training)
    change_T = (one - two).abs().amax(dim=-1)
    return bool(change_T[at].max() > _ROUNDING * change_T[changed])


def _config(transformers: Any, folder: HfFolder, overrides: Mapping[str, Any]) -> Any:
    kind = folder.config["model_type"]
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    if kind not in known:
        code = "; it brings code of its own, which is not run" if "auto_map" in folder.config else ""
        raise _wrong(PATH, f'transformers {transformers.__version__} knows no model_type "{kind}"{code}')
    if "quantization_config" in folder.config:
        raise _wrong(PATH, f"{folder.path} is quantized, which cannot be trained: take the folder it was made from")
    try:
        config = known[kind].from_dict({**folder.config, **overrides})
        names = {*known[kind]().to_dict(), *folder.config, *known[kind].attribute_map}
    except Exception as error:  # the classes check their fields each in its own way
        raise _wrong(_OVERRIDES if overrides else PATH, f"{kind} refuses its config: {error}") from error
    if unknown := sorted(set(overrides) - names):
        raise SpecError(tuple(_unknown(name, kind, names) for name in unknown), source="spec.train")
    return config


def _load(transformers: Any, folder: HfFolder, config: Any) -> Any:
    """``from_pretrained`` without anything missing: transformers would make up random values for it."""
    from safetensors import SafetensorError

    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below with their names
        )
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {folder.path} cannot be loaded: {error}",
            hint="fetch the folder again, or begin with random ones (spec.train.model.weights: random)",
        ) from error
    wrong = [f"{name}: not in the folder" for name in sorted(report["missing_keys"])]
    wrong += [f"{name}: in the folder, but not in the model" for name in sorted(report["unexpected_keys"])]
    wrong += [
        f"{name}: expected shape {list(wanted)}, found {list(found)}"
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    if wrong:
        shown = wrong[:_LISTED] + [f"and {len(wrong) - _LISTED} more"] * (len(wrong) > _LISTED)
        raise CheckpointError(
            "\n".join([f"the weights in {folder.path} are not those of its config.json:", *shown]),
            hint="check spec.train.model.overrides, or begin with random ones (spec.train.model.weights: random)",
        )
    return model


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise _wrong("spec.train.task", f"hf_causal_lm needs transformers, which is not installed: {_PIP}") from error
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def _unknown(name: str, kind: str, known: set[str]) -> Problem:
    close = difflib.get_close_matches(name, known, n=1)
    advice = f' (did you mean "{close[0]}"?)' if close else ""
    return Problem(path=f"{_OVERRIDES}.{name}", message=f"{kind} has no such value{advice}")


def _wrong(path: str, message: str) -> SpecError:
    hint = FOLDER_HINT if path == PATH else ""
    return SpecError((Problem(path=path, message=message),), source="spec.train", hint=hint)
