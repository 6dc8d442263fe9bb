"""What a controller that stands by tells: who leads, or what keeps it from leading and what to do about that.

Without it people would ask the wrong controller and not be told which is the right one.
"""

from __future__ import annotations

import asyncio

from simulation.virtual_loop import run_virtually
from simulation.virtual_store import StoreClient, VirtualStore
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.rpc.standby import FailedTry, StandbyServer, refusal
from trainctl.controller.standby import campaign
from trainctl.controller.store.port import StoreFullError, StoreUnavailableError
from trainctl.protos.status import code_of, error_from_status, status_of

AT_S = 1_790_000_000.0


def test_it_names_the_leader_and_how_to_find_it() -> None:
    error = refusal("a at a:7070", None)
    assert str(error) == "this controller stands by; a at a:7070 leads"
    assert "--controller" in error.hint
    assert str(refusal("", None)) == "this controller stands by; nobody leads yet"


def test_why_nobody_leads_reaches_the_client_with_its_remedy() -> None:
    full = StoreFullError("etcd e:2379: lease_grant: the store is full", hint="disarm its NOSPACE alarm")
    error = refusal("", FailedTry(AT_S, full))
    told = error_from_status(status_of(error), code_of(error))
    assert str(told) == (
        "this controller stands by; nobody leads yet: it tried at 2026-09-21 14:13:20 UTC and could not: "
        "etcd e:2379: lease_grant: the store is full"
    )
    assert (told.code, told.cause, told.hint) == ("NOT_LEADER", "STORE_FULL", "disarm its NOSPACE alarm")


def test_who_led_is_still_named_while_the_store_is_silent() -> None:
    error = refusal("a at a:7070", FailedTry(AT_S, StoreUnavailableError("etcd e:2379: get: no answer")))
    assert "a at a:7070 led when the store last answered, and at 2026-09-21 14:13:20 UTC it did not: etcd" in str(error)
    assert error.cause == "STORE_UNAVAILABLE"


def test_a_failure_is_told_until_somebody_leads() -> None:
    async def main() -> None:
        server, waiting = VirtualStore(), StandbyServer()
        waiting.failed = FailedTry(AT_S, StoreFullError("in an earlier life"))
        await Leadership.take(StoreClient(server, "a"), Candidate(holder="a", address="a:7070", ttl_s=10.0))

        async def ready() -> Candidate:
            return Candidate(holder="b", ttl_s=10.0)

        link = StoreClient(server, "b")
        turn = asyncio.create_task(campaign(link, ready, waiting, now_s=asyncio.get_running_loop().time))
        await asyncio.sleep(1.0)
        assert waiting.leader == "a at a:7070"
        assert not waiting.failed
        link.link.cut = True
        await asyncio.sleep(8.0)  # it looks at the leader every few seconds
        assert waiting.leader == "a at a:7070"
        assert waiting.failed is not None
        link.link.cut = False
        assert (await turn).epoch == 2  # the lease of the first one ran out
        server.close()

    run_virtually(main)


def test_a_leader_keeps_why_its_lease_was_not_renewed() -> None:
    async def main() -> None:
        server = VirtualStore()
        client = StoreClient(server, "a")
        leadership = await Leadership.take(client, Candidate(holder="a", ttl_s=10.0))
        renewing = asyncio.create_task(leadership.renew(asyncio.get_running_loop().time, 10.0))
        await asyncio.sleep(5.0)
        assert leadership.silence is None
        client.link.cut = True
        await renewing
        assert leadership.fenced.is_set()
        assert leadership.silence is not None
        server.close()

    run_virtually(main)
