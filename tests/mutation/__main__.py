"""``make mutants``: whether the tests of the pure core notice when what it decides is changed.

A sample of its mutants (``mutants.py``, ``operators.py``) is tried, each in a process of its own with the tests that
pass the changed line, quickest first, until one fails (``trial.py``). What was found is kept in ``.mutants``, so that a
run that ends early is gone on with, and one after a change tries again only what the change may have to do with.

Written here because the libraries do not fit. mutmut 3.8.1 names a module by its path, where ``src/`` alone may stand
before the package: under our five portions no test is found for any mutant; and it changes the bodies of functions, no
constants and defaults beside them. cosmic-ray 8.7.0 writes each mutant into the working tree and runs one command for
all, with no choice of tests: minutes for a mutant.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext

from architecture.coverage_figures import ALL_OF_CORE, BUDGETS, CORE
from mutation.mutants import Mutant, mutants, sample, sources
from mutation.passing import Passing, known
from mutation.trial import run, scratch, server, survives
from mutation.verdicts import LATE, Verdict, Verdicts


def main() -> int:
    """Prints the figures and the survivors; 1 if fewer are killed than the budget says, 2 if the time was up."""
    parser = argparse.ArgumentParser(
        prog="mutation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=300, help="so many mutants")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that; run it again to go on")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="side by side")
    parser.add_argument("--only", default="", metavar="PATH", help="of modules whose path begins so")
    options = parser.parse_args()
    until_s, started, passing = time.monotonic() + options.seconds, server(), Passing()
    with scratch():
        for answer in known(started, options.processes):
            passing.take(answer)
        for name in passing.broken:
            print(f"fails without any change while its lines are counted, and is not asked: {name}")
        everything = mutants([path for path in sources() if path.startswith(options.only)])
        chosen = sample(everything, options.sample, options.seed)
        print(f"{len(chosen)} of {len(everything)} mutants, {len(passing.seconds)} tests", flush=True)
        tried = _try(chosen, passing, started, until_s, options.processes)
    if len(tried) < len(chosen):
        print(f"{len(tried)} of {len(chosen)} tried when the time was up; run it again to go on", file=sys.stderr)
        return 2  # a figure would be too good: what a test killed earlier is known, what survived then is tried again
    return _told(tried)


def _try(
    chosen: Sequence[Mutant], passing: Passing, started: ForkServerContext, until_s: float, processes: int
) -> dict[Mutant, Verdict]:
    verdicts = Verdicts()
    tried = {mutant: found for mutant in chosen if (found := verdicts.get(mutant)) is not None}
    names = frozenset(passing.seconds)

    def by(mutant: Mutant) -> str | None:
        tests = passing.tests(mutant)
        if time.monotonic() > until_s or not tests:
            return None if tests else ""
        answer = run(
            started,
            survives,
            mutant,
            tests,
            names,
            limit_s=30 + 5 * sum(sum(of_it.values()) for of_it in tests.values()),
        )
        return LATE if answer is None else str(answer)

    left = [mutant for mutant in chosen if mutant not in tried]
    with ThreadPoolExecutor(processes) as pool:
        for mutant, killer in zip(left, pool.map(by, left), strict=True):
            if killer is not None:
                tried[mutant] = verdicts.add(mutant, killer, passing)
                print(f"{mutant}\n    {killer or 'SURVIVED'}", flush=True)
    return tried


def _told(tried: dict[Mutant, Verdict]) -> int:
    print("\nsurvivors:")
    for mutant, verdict in tried.items():
        if not verdict.by:
            print(f"{mutant}  [{verdict.tests} tests]")
    print()
    for name in (*CORE, ALL_OF_CORE):
        of_it = [verdict for mutant, verdict in tried.items() if name in (mutant.part, ALL_OF_CORE)]
        if of_it:
            killed = sum(bool(verdict.by) for verdict in of_it)
            print(f"{name:<28} {100 * killed / len(of_it):5.1f} % ({killed} of {len(of_it)})")
    least = tomllib.loads(BUDGETS.read_text())["product"]["mutants"]["core_least_percent"]
    percent = 100 * sum(bool(verdict.by) for verdict in tried.values()) / max(1, len(tried))
    if percent < least:
        print(f"expected {least} % of the mutants killed at least (tests/architecture/budgets.toml)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
