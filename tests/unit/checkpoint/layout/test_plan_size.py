"""The plans of a model of 70 billion parameters on 1,024 ranks: less than two seconds of a processor of one's own.

Without it a large job could plan longer than it copies. Between layouts like rows and columns, where one rank gets
1.7 million pieces, it is a few microseconds for each (docs/adr/0016).

``pytest -s`` prints what each took.
"""

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
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, flat_in_box, volume
from trainctl.checkpoint.layout.region import common as shared
from unit.checkpoint.layouts import cut_columns, cut_rows, key

RANKS = 1024
TARGET_S = 2.0
BUSY = 4
"""Processor time does not count waiting, but a processor shared with others does less in a second of it."""
LIMIT_S = TARGET_S * BUSY

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


BY_COLUMNS = ("o_proj", "down_proj")
"""What row-parallel layers of tensor parallelism cut along dim 1; all others along dim 0."""


def tensor_parallel(parts: int, *, zero: bool = False) -> Layout:
    """Matrices by rows and columns over ``parts`` ranks; the others replicate that, or cut each part on (ZeRO)."""
    shards = RANKS // parts
    made: dict[tuple[Shape, bool], Placement] = {}
    placements = {}
    for state_key, shape in STATE.items():
        dim = 1 if state_key.fqn.endswith(BY_COLUMNS) else 0
        if (shape, bool(dim)) not in made:
            held: dict[str, tuple[Region, ...]] = {}
            for rank in range(RANKS):
                box = whole_box(shape) if len(shape) == 1 else along(shape, dim, parts, rank % parts)
                size, shard = volume(box), rank // parts
                cut = Flat(size * shard // shards, size * (shard + 1) // shards)
                held[rank_holder(rank)] = flat_in_box(box, cut) if zero else (box,)
            made[shape, bool(dim)] = Placement(shape, held)
        placements[state_key] = made[shape, bool(dim)]
    return Layout.placed(placements)


def whole_box(shape: Shape) -> Box:
    return Box((0,) * len(shape), shape)


def along(shape: Shape, dim: int, parts: int, index: int) -> Box:
    """One of equal parts along a dim."""
    size = shape[dim] // parts
    offsets = tuple(index * size if d == dim else 0 for d in range(len(shape)))
    return Box(offsets, tuple(size if d == dim else n for d, n in enumerate(shape)))


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "rows": lambda: cut_rows(STATE, parts=RANKS),
    "rows of 768": lambda: cut_rows(STATE, parts=768),
    "columns": lambda: cut_columns(STATE, parts=RANKS),
    "replicated rows": lambda: cut_rows(STATE, parts=128, replicas=8),
    "replicas": lambda: replicated(STATE, [rank_holder(rank) for rank in range(RANKS)]),
    "flat": one_after_the_other,
    "TP 8": lambda: tensor_parallel(8),
    "TP 4": lambda: tensor_parallel(4),
    "TP 8 with ZeRO": lambda: tensor_parallel(8, zero=True),
    "TP 4 with ZeRO": lambda: tensor_parallel(4, zero=True),
}
SHARDED = ["rows", "rows of 768", "replicated rows", "flat"]
"""Between these, what a rank gets is no more than some thousand ranges."""
PARALLEL = ["TP 8", "TP 8 with ZeRO"]


@pytest.mark.parametrize("name", [*SHARDED, "replicas", *PARALLEL])
def test_the_part_of_one_rank_is_known_at_once(name: str) -> None:
    begin_s = time.process_time()
    runs = assign(LAYOUTS[name]())[rank_holder(5)]
    taken(f"save {name}", begin_s)
    share = FAIR_SHARE * RANKS / 768 if name == "rows of 768" else FAIR_SHARE
    assert sum(map(len, runs.values())) <= 3 * len(STATE)
    assert sum(volume(part) for parts in runs.values() for part in parts) == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize(
    ("src_name", "dst_name"),
    [
        *itertools.product([*SHARDED, "replicas"], SHARDED),
        ("flat", "replicas"),
        ("columns", "columns"),
        *itertools.product(["TP 8"], ["TP 4", "TP 4 with ZeRO", "flat"]),
        *itertools.product(["TP 4", "flat", "replicas"], PARALLEL),
        *itertools.product(["TP 8 with ZeRO"], ["TP 4 with ZeRO", "flat"]),
    ],
)
def test_a_rank_knows_at_once_what_it_gets_and_what_it_sends(src_name: str, dst_name: str) -> None:
    src, dst = LAYOUTS[src_name](), LAYOUTS[dst_name]()
    begin_s = time.process_time()
    plan = copy_plan(src, dst)
    transfers = plan.into(rank_holder(5))
    sent = plan.out_of(rank_holder(5))
    missing = plan.missing
    taken(f"{src_name} -> {dst_name}", begin_s)
    assert missing == ()
    kept = sum(common(src, dst, state_key) for state_key in STATE)
    wanted = sum(volume(part) for state_key in STATE for part in dst.parts(rank_holder(5), state_key))
    assert sum(volume(t.region) for t in transfers) == wanted - kept
    assert {t.dst_holder for t in transfers} <= {rank_holder(5)}
    assert {t.src_holder for t in sent} <= {rank_holder(5)}


@pytest.mark.parametrize(
    ("src_name", "dst_name", "pieces", "piece_s"),
    [
        ("rows", "columns", 1_700_000, 2e-6),
        ("columns", "rows", 1_700_000, 2e-6),
        ("columns", "TP 8", 1_700_000, 2e-6),
        ("TP 8 with ZeRO", "TP 8", 270_000, 8e-6),  # of which most is to share out the norms, which are replicated
    ],
)
def test_where_a_rank_gets_a_piece_of_everything_each_costs_little(
    src_name: str, dst_name: str, pieces: int, piece_s: float
) -> None:
    plan = copy_plan(LAYOUTS[src_name](), LAYOUTS[dst_name]())
    begin_s = time.process_time()
    count = len(plan.into(rank_holder(5)))
    each_s = (time.process_time() - begin_s) / count
    print(f"{src_name + ' -> ' + dst_name:40} {count} pieces, {each_s * 1e6:.2f} us each")
    assert count > pieces
    assert each_s < piece_s * BUSY


def taken(what: str, begin_s: float) -> None:
    took_s = time.process_time() - begin_s
    print(f"{what:40} {took_s:6.2f} s")
    assert took_s < LIMIT_S, f"{what}: expected less than {LIMIT_S} s of processor time, found {took_s:.2f} s"


def common(src: Layout, dst: Layout, state_key: StateKey) -> int:
    """Elements that rank 5 holds on both sides."""
    shape = src.shapes[state_key]
    held, wanted = (layout.parts(rank_holder(5), state_key) for layout in (src, dst))
    return sum(volume(part) for a in held for b in wanted for part in shared(shape, a, b))
