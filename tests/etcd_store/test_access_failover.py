"""Tokens and the audit log over the death of a leader: the next one knows both.

Without it a fail-over could let a revoked token in again, or lose who did what.
"""

from __future__ import annotations

import signal
from pathlib import Path

from etcd_store.controllers import TOKEN, ControllerProcess, two_controllers
from etcd_store.leaders import client_of, leader_of
from etcd_store.running import run
from etcd_store.servers import EtcdCluster
from trainctl.core.errors import TrainctlError
from trainctl.protos.v1 import access_pb2
from unit.access.api import Api, methods


def test_the_heir_knows_who_may_what_and_what_was_asked_for(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def body(both: list[ControllerProcess]) -> None:
        leader = await leader_of(both)
        own = Api((await client_of(leader)).channel, TOKEN)
        texts = []
        for name in ("ann", "bob"):
            grants = [access_pb2.Grant(tenant="research", role="viewer")]
            request = access_pb2.CreateTokenRequest(name=name, grants=grants)
            texts.append((await own.by_name("CreateToken", request)).secret)
        await own.by_name("RevokeToken", access_pb2.RevokeTokenRequest(id=texts[1].split("_")[1]))
        leader.send(signal.SIGKILL)
        leader.wait()
        await own.channel.close()
        heir = await leader_of(both, other_than=leader)
        channel = (await client_of(heir)).channel
        me = await Api(channel, texts[0]).by_name("WhoAmI", access_pb2.WhoAmIRequest())
        assert (me.name, me.home_tenant) == ("ann", "research")
        refused = await whoami(Api(channel, texts[1]))
        assert refused is not None
        assert "of bob was revoked" in str(refused)
        grants = [access_pb2.Grant(tenant="research", role="viewer")]
        await Api(channel, TOKEN).by_name("CreateToken", access_pb2.CreateTokenRequest(name="carl", grants=grants))
        records = (await Api(channel, TOKEN).by_name("ListAudit", access_pb2.ListAuditRequest())).records
        changes = [(one.method, one.subject) for one in records if one.outcome != "UNAUTHENTICATED"]
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        bob = texts[1].split("_")[1]
        assert changes == [
            ("CreateToken", "ann"),
            ("CreateToken", "bob"),
            ("RevokeToken", bob),
            ("CreateToken", "carl"),
        ]
        assert records[0].epoch < records[-1].epoch
        await channel.close()

    with two_controllers(etcd, tmp_path) as both:
        run(lambda: body(both))


async def whoami(api: Api) -> TrainctlError | None:
    method = next(method for method in methods() if method.name == "WhoAmI")
    return await api.refusal(method, access_pb2.WhoAmIRequest())
