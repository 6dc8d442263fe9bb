"""Tokens that are good, and all ways of not being so; what a revoked one held open ends.

Without it a forged or revoked token could be let in.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from trainctl.controller import keys
from trainctl.controller.access.token import TokenRecord, digest, ended, parts, shows, written
from trainctl.controller.store.port import StateStore
from trainctl.core.errors import TrainctlError
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import access_pb2, job_pb2
from trainctl.protos.version import call_metadata
from unit.access.api import methods, own, token_for, with_token
from unit.controller.controller_harness import Running, create, run, serving, spec

GOOD = "tctl_0123abcd_" + "ab" * 24


def test_the_form_of_a_token_is_one_thing_only() -> None:
    assert parts(GOOD) == ("0123abcd", "ab" * 24)
    assert parts(written("0123abcd", "ab" * 24)) == ("0123abcd", "ab" * 24)
    for wrong in ("", "tctl_", GOOD + "\n", " " + GOOD, GOOD.upper(), GOOD[:-1], GOOD + "0", "tctl__" + "a" * 48):
        assert parts(wrong) is None


def test_only_the_secret_itself_shows_a_token() -> None:
    record = TokenRecord(id="0123abcd", name="ann", sha256=digest("ab" * 24))
    assert shows(record, "ab" * 24)
    assert not shows(record, "ab" * 23 + "ac")
    assert not shows(None, "ab" * 24)
    assert not shows(None, "")
    assert "ab" * 24 not in repr(record)


def test_a_token_that_ended_says_when() -> None:
    record = TokenRecord(id="0123abcd", name="ann", sha256="", expires_s=1_700_000_000.0)
    assert ended(record, 1_699_999_999.0) is None
    assert str(ended(record, 1_700_000_000.0)) == "the token 0123abcd of ann expired at 2023-11-14 22:13:20 UTC"
    revoked = TokenRecord(id="0123abcd", name="ann", sha256="", revoked_s=1_700_000_000.0)
    assert str(ended(revoked, 0.0)) == "the token 0123abcd of ann was revoked at 2023-11-14 22:13:20 UTC"
    assert not record.ended_by(1_699_999_999.0)
    assert record.ended_by(1_700_000_000.0)
    assert not TokenRecord(id="a", name="b", sha256="").ended_by(1e12)


async def refused(running: Running, token: str) -> TrainctlError:
    method = next(method for method in methods() if method.name == "GetVersion")
    error = await with_token(running, token).refusal(method, job_pb2.GetVersionRequest())
    assert error is not None
    assert error.code == "UNAUTHENTICATED"
    assert error.exit_code == 5
    assert not token or token not in f"{error}{error.hint}"
    return error


def store_of(running: Running) -> StateStore:
    return cast("StateStore", cast("Any", running.controller.leadership)._store)


def test_every_bad_token_has_its_own_sentence(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            assert "no token" in str(await refused(running, ""))
            assert "another token" in str(await refused(running, "f" * 64))
            assert "another token" in str(await refused(running, "x" * 4000))
            assert "expected tctl_ID_SECRET" in str(await refused(running, "tctl_" + "x" * 4000))
            assert "not known here" in str(await refused(running, GOOD))
            text = await token_for(running, "ann", ("default", "viewer"), ttl_s=0.001)
            await asyncio.sleep(0.002)
            assert re.search(
                r"of ann expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", str(await refused(running, text))
            )
            text = await token_for(running, "bob", ("default", "viewer"))
            id_ = text.split("_")[1]
            await own(running).by_name("RevokeToken", access_pb2.RevokeTokenRequest(id=id_))
            assert "of bob was revoked at" in str(await refused(running, text))
            assert "not known here" in str(await refused(running, text[:-1] + ("0" if text[-1] != "0" else "1")))

    run(main)


def test_a_secret_is_in_one_answer_and_nowhere_in_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            text = await token_for(running, "ann", ("default", "viewer"))
            secret = text.split("_")[2]
            assert (await with_token(running, text).by_name("WhoAmI", access_pb2.WhoAmIRequest())).name == "ann"
            await own(running).by_name("ListAudit", access_pb2.ListAuditRequest())
            stored = (await store_of(running).range(keys.ROOT)).items
            assert any(item.key.startswith(keys.TOKENS) for item in stored)
            assert not any(secret.encode() in item.value for item in stored)
            assert secret not in caplog.text
            listed = await own(running).by_name("ListTokens", access_pb2.ListTokensRequest())
            assert secret not in str(listed)
            assert [token.name for token in listed.tokens] == ["ann"]

    caplog.set_level("DEBUG")
    run(main)


def test_a_stream_ends_when_its_token_is_revoked_or_expires(tmp_path: Path) -> None:
    async def watched(running: Running, token: str) -> TrainctlError:
        request = job_pb2.WatchEventsRequest(name="a")
        call = running.client.jobs.WatchEvents(request, metadata=call_metadata(token), timeout=30)
        try:
            async for _ in call:
                if "tctl" in token and not seen.is_set():
                    seen.set()
        except grpc.RpcError as error:
            return error_from_rpc(error)
        raise AssertionError("the stream ended by itself")

    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
            text = await token_for(running, "ann", ("default", "viewer"))
            other = await token_for(running, "bob", ("default", "viewer"))
            watching = asyncio.create_task(watched(running, text))
            staying = asyncio.create_task(watched(running, other))
            await seen.wait()
            revoke = access_pb2.RevokeTokenRequest(id=text.split("_")[1])
            await own(running).by_name("RevokeToken", revoke)
            async with asyncio.timeout(5.0):
                error = await watching
            assert error.code == "UNAUTHENTICATED"
            assert "of ann was revoked at" in str(error)
            assert not staying.done()
            staying.cancel()
            short = await token_for(running, "carl", ("default", "viewer"), ttl_s=0.5)
            async with asyncio.timeout(10.0):
                error = await watched(running, short)
            assert "of carl expired at" in str(error)

    seen = asyncio.Event()
    run(main)


def test_the_next_leader_knows_what_the_one_before_made_and_revoked(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            ann = await token_for(running, "ann", ("research", "viewer"))
            bob = await token_for(running, "bob", ("research", "viewer"))
            await own(running).by_name("RevokeToken", access_pb2.RevokeTokenRequest(id=bob.split("_")[1]))
        async with serving(tmp_path) as running:
            me = await with_token(running, ann).by_name("WhoAmI", access_pb2.WhoAmIRequest())
            assert (me.name, me.home_tenant, me.kind) == ("ann", "research", "person")
            assert "was revoked" in str(await refused(running, bob))

    run(main)


def test_wrong_requests_name_everything_that_is_wrong(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            create_token = next(method for method in methods() if method.name == "CreateToken")
            grants = [access_pb2.Grant(tenant="a", role="king"), access_pb2.Grant(tenant="a", role="viewer")]
            request = access_pb2.CreateTokenRequest(name="local", grants=grants, ttl_s=-1)
            error = await own(running).refusal(create_token, request)
            assert error is not None
            assert error.code == "USAGE"
            for part in (
                "name: expected",
                "ttl_s: expected",
                'role: expected viewer, submitter, operator, admin, found "king"',
                "twice",
            ):
                assert part in str(error)
            for tenant in ("A b", "../x", "a/b", "x" * 64):
                request = access_pb2.CreateTokenRequest(
                    name="x", grants=[access_pb2.Grant(tenant=tenant, role="viewer")]
                )
                error = await own(running).refusal(create_token, request)
                assert error is not None
                assert "tenant: expected at most 63 small letters" in str(error)

    run(main)


def test_a_request_that_comes_twice_makes_one_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            create_token = next(method for method in methods() if method.name == "CreateToken")
            request = access_pb2.CreateTokenRequest(
                name="ann", grants=[access_pb2.Grant(tenant="a", role="viewer")], request_id="r-1"
            )
            answers = await asyncio.gather(*(own(running).refusal(create_token, request) for _ in range(5)))
            assert sum(answer is None for answer in answers) == 1
            assert {answer.code for answer in answers if answer is not None} == {"CONFLICT"}
            listed = await own(running).by_name("ListTokens", access_pb2.ListTokensRequest())
            assert len(listed.tokens) == 1

    run(main)


def test_an_admin_of_a_tenant_rules_its_tokens_and_no_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            admin = with_token(running, await token_for(running, "boss", ("research", "admin")))
            other = await token_for(running, "eve", ("other", "viewer"))
            both = await token_for(running, "both", ("research", "viewer"), ("other", "viewer"))
            grants = [access_pb2.Grant(tenant="research", role="admin")]
            made = await admin.by_name("CreateToken", access_pb2.CreateTokenRequest(name="ann", grants=grants))
            assert made.token.created_by.startswith("boss (token ")
            listed = await admin.by_name("ListTokens", access_pb2.ListTokensRequest())
            assert [token.name for token in listed.tokens] == ["boss", "ann"]
            for text in (other, both, GOOD):
                request = access_pb2.RevokeTokenRequest(id=text.split("_")[1])
                error = await admin.refusal(next(m for m in methods() if m.name == "RevokeToken"), request)
                assert error is not None
                assert error.code == "NOT_FOUND"

    run(main)
