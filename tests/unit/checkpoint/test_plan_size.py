"""The plans of a model of 70 billion parameters on 1,024 ranks: a second or two of processor time, on any machine."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import pytest

from trainctl.checkpoint.engine import assign
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Flat, Shape
from unit.checkpoint.layouts import cut_rows, key

RANKS = 1024
LIMIT_S = 3 * 2.0
"""Three times the target, for slow machines."""

HIDDEN, UP, GROUPED, VOCABULARY = 8192, 28672, 1024, 128256
BLOCK = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (GROUPED, HIDDEN),
    "self_attn.v_proj": (GROUPED, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (UP, HIDDEN),
    "mlp.up_proj": (UP, HIDDEN),
    "mlp.down_proj": (HIDDEN, UP),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
MODEL: dict[str, Shape] = {
    **{f"layers.{layer}.{name}": shape for layer in range(80) for name, shape in BLOCK.items()},
    "embed_tokens": (VOCABULARY, HIDDEN),
    "lm_head": (VOCABULARY, HIDDEN),
    "norm": (HIDDEN,),
}
STATE = {key(name, kind): shape for name, shape in MODEL.items() for kind in ("param", "exp_avg", "exp_avg_sq")}
FAIR_SHARE = sum(math.prod(shape) for shape in STATE.values()) / RANKS


def one_after_the_other() -> Layout:
    """ZeRO: all tensors in a row, cut into equal parts."""
    part = math.ceil(FAIR_SHARE)
    placements = {}
    begin = 0
    for state_key, shape in STATE.items():
        end = begin + math.prod(shape)
        cuts = [begin, *range((begin // part + 1) * part, end, part), end]
        held = {rank_holder(low // part): (Flat(low - begin, high - begin),) for low, high in itertools.pairwise(cuts)}
        placements[state_key] = Placement(shape, held)
        begin = end
    return Layout.placed(placements)


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "shards": lambda: cut_rows(STATE, parts=RANKS),
    "replicated shards": lambda: cut_rows(STATE, parts=128, replicas=8),
    "replicas": lambda: replicated(STATE, [rank_holder(rank) for rank in range(RANKS)]),
    "flat": one_after_the_other,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_part_of_one_rank_is_known_at_once(name: str) -> None:
    begin_s = time.process_time()
    runs = assign(LAYOUTS[name]())[rank_holder(5)]
    assert time.process_time() - begin_s < LIMIT_S
    assert sum(run.volume for key_runs in runs.values() for run in key_runs) == pytest.approx(FAIR_SHARE, rel=0.05)


def test_a_rank_of_768_knows_at_once_what_it_gets_from_1024() -> None:
    begin_s = time.process_time()
    src, dst = cut_rows(STATE, parts=RANKS), cut_rows(STATE, parts=768)
    plan = copy_plan(src, dst)
    transfers = plan.into(rank_holder(5))
    sent = plan.out_of(rank_holder(5))
    assert time.process_time() - begin_s < LIMIT_S
    assert plan.missing == ()
    kept = sum(common(src, dst, state_key) for state_key in STATE)
    wanted = sum(run.volume for state_key in STATE for run in dst.runs(rank_holder(5), state_key))
    assert sum(t.region.volume for t in transfers) == wanted - kept
    assert {t.src_holder for t in sent} == {rank_holder(5)}


def common(src: Layout, dst: Layout, state_key: StateKey) -> int:
    """Elements that rank 5 holds on both sides."""
    pairs = [(a, b) for a in src.runs(rank_holder(5), state_key) for b in dst.runs(rank_holder(5), state_key)]
    return sum(max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in pairs)
