"""Without it the simulated machines could do what no process does, and its findings would be about nothing real."""

from __future__ import annotations

import asyncio

import pytest

from simulation.virtual_loop import NothingLeftError, Process, run_virtually


def test_time_jumps_and_timers_run_in_order() -> None:
    async def main() -> list[float]:
        loop, seen = asyncio.get_running_loop(), list[float]()
        start_s = loop.time()

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(round(loop.time() - start_s, 6))

        await asyncio.gather(*(sleeper(s) for s in (3600.0, 0.5, 7.0)))
        return seen

    assert run_virtually(main) == [0.5, 7.0, 3600.0]


def test_waiting_for_what_never_comes_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftError, match="nothing will ever happen"):
        run_virtually(main)


def test_work_for_threads_runs_here_and_now() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 41) + 1

    assert run_virtually(main) == 42


async def beats(seen: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        seen.append(loop.time())


def test_a_frozen_process_does_nothing_and_goes_on_where_it_was() -> None:
    async def main() -> tuple[list[float], list[str]]:
        loop, seen, timed = asyncio.get_running_loop(), list[float](), list[str]()
        process, start_s = Process("a"), loop.time()

        async def limited() -> None:
            try:
                async with asyncio.timeout(20.0):
                    await asyncio.sleep(3.0)
                timed.append("done")
            except TimeoutError:
                timed.append("late")

        process.spawn(beats(seen))
        process.spawn(limited())
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(30.0)
        assert len(seen) == 2
        process.thaw()
        await asyncio.sleep(2.25)
        await process.bury()
        return [round(at_s - start_s, 3) for at_s in seen], timed

    seen, timed = run_virtually(main)
    assert seen == [1.0, 2.0, 32.5, 33.5, 34.5]
    assert len(timed) == 1


def test_a_killed_process_never_runs_again_not_even_its_ends() -> None:
    async def main() -> list[str]:
        said: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(5.0)
                said.append("went on")
            finally:
                said.append("tidied up")

        process = Process("a")
        process.spawn(work())
        await asyncio.sleep(1.0)
        process.kill()
        await asyncio.sleep(60.0)
        assert said == []
        await process.bury()
        return said

    assert run_virtually(main) == ["tidied up"]


def test_tasks_that_a_process_starts_are_its_own() -> None:
    async def main() -> int:
        process, seen = Process("a"), list[float]()

        async def parent() -> None:
            asyncio.create_task(beats(seen))  # noqa: RUF006
            asyncio.get_running_loop().call_later(0.5, seen.append, 0.0)

        await process.spawn(parent())
        process.freeze()
        await asyncio.sleep(10.0)
        count = len(seen)
        await process.bury()
        return count

    assert run_virtually(main) == 0
