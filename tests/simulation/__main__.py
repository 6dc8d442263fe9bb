"""``python -m simulation``: seeds, one seed again, a plan from a file, the smallest plan that breaks something."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from simulation.history import outline
from simulation.plan import Plan
from simulation.scenario import FOLDER, keep, rewrite
from simulation.seeds import judge, judge_all, plan_of
from simulation.shrink import shrunk
from simulation.world import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", default="", metavar="FIRST-LAST", help="run all of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="side by side")
    parser.add_argument("--seed", type=int, default=-1, help="run one")
    parser.add_argument("--plan", type=Path, help="run what a file says")
    parser.add_argument("--shrink", action="store_true", help="print the smallest plan that breaks the same invariants")
    parser.add_argument("--show", action="store_true", help="print the plan and the events")
    parser.add_argument("--rewrite", default="", metavar="SCENARIO", help="take what happens now for what it expects")
    parser.add_argument(
        "--keep", default="", metavar="SENTENCE", help="write the plan down among those that found a bug"
    )
    options = parser.parse_args()
    if options.rewrite:
        rewrite(FOLDER / f"{options.rewrite}.json")
        return 0
    if options.seeds:
        first, _, last = options.seeds.partition("-")
        return _many(range(int(first), int(last or first) + 1), options.processes)
    plan = Plan.from_json(options.plan.read_text()) if options.plan else plan_of(max(0, options.seed))
    if options.keep:
        print(keep(plan, options.keep))
        return 0
    return _one(plan, shrink=options.shrink, show=options.show)


def _many(seeds: range, processes: int) -> int:
    began_s, cpu_s, broken, count = time.monotonic(), 0.0, [], 0
    for verdict in judge_all(seeds, processes=processes):
        count += 1
        cpu_s += verdict.cpu_s
        if verdict.violations:
            broken.append(verdict.seed)
            print(verdict, flush=True)
        if count % 100 == 0:
            print(f"{count} of {len(seeds)} seeds, {len(broken)} break something", flush=True)
    took_s = time.monotonic() - began_s
    print(f"{count} seeds in {took_s:.0f} s ({cpu_s / max(1, count):.2f} s of a core each); broken: {sorted(broken)}")
    return 1 if broken else 0


def _one(plan: Plan, *, shrink: bool, show: bool) -> int:
    verdict = judge(plan)
    print(verdict)
    if show:
        print(plan.to_json() + "\n".join(outline(play(plan))))
    if shrink and verdict.violations:
        wanted = {violation.partition(":")[0] for violation in verdict.violations}
        small = shrunk(plan, lambda p: bool(wanted & {v.partition(":")[0] for v in judge(p).violations}))
        print(f"the smallest plan that breaks {', '.join(sorted(wanted))}:\n{small.to_json()}{judge(small)}")
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
