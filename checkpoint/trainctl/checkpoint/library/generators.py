"""The states of random generators as JSON values, so that training goes on with the numbers it would have drawn."""

from __future__ import annotations

import base64
import random
import struct
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from trainctl.checkpoint.library.ranks import Ranks
from trainctl.core.errors import CheckpointError
from trainctl.core.plain import is_list, is_mapping, is_tuple

_WORDS = 625
"""Of Python's generator: 624 words, and where in them it is."""
_KINDS = ("python", "numpy", "torch", "cuda")


def generator_states(group: dist.ProcessGroup | None = None) -> dict[str, Any]:
    """The state of every rank's generators, for ``objects``; all ranks call it together.

    Python's ``random``, NumPy's global generator if NumPy is imported, and torch's of the CPU and of the CUDA devices
    if they are used. About 13 KiB a rank. Generators that a program makes itself are its own to save.

    Args:
        group: all ranks; None: the default group, or this process alone.
    """
    return {"ranks": Ranks(group).gather(_own())}


def restore_generators(saved: Mapping[str, Any], group: dist.ProcessGroup | None = None) -> bool:
    """Puts the generators back; all ranks call it together, after ``load``.

    Args:
        saved: what ``generator_states`` gave.
        group: all ranks; None: the default group, or this process alone.

    Returns:
        Whether it did so. On another number of ranks, or of devices on any of them, there is no telling whose state is
        whose: then no generator of any rank is changed, and the caller seeds them anew.

    Raises:
        CheckpointError: it is nothing that ``generator_states`` gave. On all ranks.
    """
    ranks = Ranks(group)
    states = saved.get("ranks") if is_mapping(saved) else None
    if not (is_list(states) or is_tuple(states)) or not all(map(_is_of_a_rank, states)):
        raise CheckpointError(
            f"expected the states of generators, found {type(saved).__name__} without ranks",
            hint="give what generator_states() returned when it was saved",
        )
    fits = len(states) == ranks.size and len(states[ranks.rank].get("cuda", ())) in (0, torch.cuda.device_count())
    if not all(ranks.gather(fits)):
        return False
    ranks.together("restoring the random generators", lambda: _restored(states[ranks.rank]))
    return True


def _is_of_a_rank(state: object) -> bool:
    """Looked at of every rank, so that all ranks come to the same verdict."""
    return is_mapping(state) and (is_list(devices := state.get("cuda", [])) or is_tuple(devices))


def _own() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    found: dict[str, Any] = {
        "python": [version, _text(struct.pack(f"<{_WORDS}I", *words)), None if gauss is None else gauss.hex()],
        "torch": _tensor_text(torch.default_generator.get_state()),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state = numpy.random.get_state(legacy=False)
        keys = _text(state["state"]["key"].astype("<u4").tobytes())
        found["numpy"] = [keys, int(state["state"]["pos"]), int(state["has_gauss"]), float(state["gauss"]).hex()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = [_tensor_text(state) for state in torch.cuda.get_rng_state_all()]
    return found


def _restored(saved: Mapping[str, Any]) -> bool:
    """Everything is read before anything is changed."""
    try:
        version, words, gauss = saved["python"]
        python = (version, struct.unpack(f"<{_WORDS}I", _data(words)), None if gauss is None else float.fromhex(gauss))
        cpu = _tensor(saved["torch"])
        cuda = [_tensor(text) for text in saved.get("cuda", ())]
        numbers = _numpy_state(*saved["numpy"]) if "numpy" in saved else None
        random.Random().setstate(python)
        torch.Generator().set_state(cpu)
    except (KeyError, TypeError, ValueError, RuntimeError, struct.error) as error:
        raise CheckpointError(
            f"expected states of {', '.join(_KINDS)} as generator_states() gives them, found others: {error}",
            hint="the checkpoint is of another version, or its objects were changed: seed the generators anew",
        ) from error
    random.setstate(python)
    torch.default_generator.set_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    if numbers is not None:
        import numpy

        numpy.random.set_state(numbers)
    return True


def _numpy_state(keys: str, position: int, has_gauss: int, gauss: str) -> dict[str, Any]:
    import numpy

    state = {"key": numpy.frombuffer(_data(keys), dtype="<u4").astype(numpy.uint32), "pos": position}
    found = {"bit_generator": "MT19937", "state": state, "has_gauss": has_gauss, "gauss": float.fromhex(gauss)}
    numpy.random.RandomState().set_state(found)
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _tensor_text(state: torch.Tensor) -> str:
    return _text(state.cpu().numpy().tobytes())


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(_data(text)), dtype=torch.uint8)
