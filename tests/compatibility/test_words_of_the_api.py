"""Words that only the other version knows, between commands and a controller: shown as they are, or refused.

Without it a command of another version could show nonsense, or do something else than it was told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from compatibility.commands import command
from compatibility.other_versions import OtherVersion
from compatibility.words import LATER
from trainctl.core.errors import TrainctlError
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import access_pb2, access_pb2_grpc, job_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec


def with_controller(folder: Path, body: Callable[[Running], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(folder) as running:
            await body(running)

    run(main)


LISTED = frozenset({"phase", "state", "status", "rung", "type", "kind", "role", "fault", "generation_phase", "outcome"})
"""Names of the fields of the API whose texts come from a list."""


def test_a_later_controller_answers_commands_in_unknown_words(tmp_path: Path) -> None:
    """Every word of its answers is one that the command line does not know."""

    async def body(running: Running) -> None:
        agent = await running.agent()
        await running.client.call("CreateJob", create(spec(per_node=2)))
        await running.client.until_phase("a", "RUNNING")
        with OtherVersion(running.controller.address, in_later_words) as other:
            for words, wanted in (
                (("get", "jobs"), LATER),
                (("describe", "a"), LATER),
                (("nodes", "list"), LATER),
                (("events", "a"), LATER),
                (("top",), LATER),
                (("timeline", "a"), ""),
                (("doctor",), ""),
                (("tokens", "list"), ""),
                (("audit",), ""),
            ):
                code, said = await command(tmp_path, other.address, *words)
                assert code == 0 or words == ("doctor",), f"{words}: {said}"
                assert "Traceback" not in said
                assert "INTERNAL" not in said
                assert wanted in said, f"{words}: {said}"
        await agent.disconnect()

    with_controller(tmp_path, body)


def in_later_words(path: str) -> Any:
    _, service, name = path.split("/")
    services = {
        found.name: found for file in (job_pb2, access_pb2) for found in file.DESCRIPTOR.services_by_name.values()
    }
    if (found := services.get(service.rpartition(".")[2])) is None:
        return (lambda data: data), (lambda data: data)
    answer: Any = message_factory.GetMessageClass(found.methods_by_name[name].output_type)
    return (lambda data: data), (lambda data: reworded(answer.FromString(data)).SerializeToString())


def reworded(message: Any) -> Any:
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.full_name.startswith("google."):
            for one in value if field.is_repeated else (value,):
                if hasattr(one, "ListFields"):
                    reworded(one)
        elif field.name in LISTED and not field.is_repeated and isinstance(value, str):
            setattr(message, field.name, LATER)
    return message


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"recovery": {"profile": LATER}}, "recovery.profile"),
        ({"train": {"precision": LATER}}, "train.precision"),
        ({"train": {"optimizer": {"name": LATER}}}, "optimizer.name"),
    ],
    ids=str,
)
def test_a_later_client_asks_for_something_unknown(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    """What a job file asks for has to be carried out: one error with the place, and nothing begun."""

    async def body(running: Running) -> None:
        job = spec()
        job["spec"] |= change
        with pytest.raises(TrainctlError) as raised:
            await running.client.call("CreateJob", create(job))
        assert place in str(raised.value)
        assert LATER in str(raised.value)
        assert not (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs

    with_controller(tmp_path, body)


def test_a_later_client_grants_a_role_that_is_unknown(tmp_path: Path) -> None:
    async def body(running: Running) -> None:
        request = access_pb2.CreateTokenRequest(name="n", grants=[access_pb2.Grant(tenant="default", role=LATER)])
        stub = access_pb2_grpc.AccessServiceStub(running.client.channel)
        with pytest.raises(grpc.RpcError) as raised:
            await stub.CreateToken(request, metadata=running.client.metadata, timeout=10)
        assert "role: expected" in str(error_from_rpc(raised.value))
        assert LATER in str(error_from_rpc(raised.value))

    with_controller(tmp_path, body)
