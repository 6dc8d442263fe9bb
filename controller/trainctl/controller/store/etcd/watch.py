"""Following changes over member losses: nothing is skipped, nothing comes twice, revisions stay whole."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence

import grpc

from trainctl.controller.store.etcd.connection import EtcdConnection, Member
from trainctl.controller.store.etcd.failures import failure_of, is_stale_token
from trainctl.controller.store.etcd.messages import KeySpace, end_of_prefix
from trainctl.controller.store.port import CompactedError, KeyEvent, StoreUnavailableError, WatchBatch
from trainctl.core.pauses import doubled_s
from trainctl.core.system.cancelling import heeding_cancellation
from trainctl.protos.etcd import rpc_pb2

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class _WatchEndedError(Exception):
    """The member ended the stream; another one goes on from the same revision."""


async def watch(
    connection: EtcdConnection, keys: KeySpace, prefix: str, start_revision: int
) -> AsyncIterator[WatchBatch]:
    """As ``StateStore.watch``.

    etcd lets one watch from the very revision that was compacted, although deletions at it may be gone: we ask from one
    revision earlier and leave out what comes from there, so whoever is let in misses nothing.
    """
    following = start_revision
    failures = 0
    while True:
        member = connection.member
        try:
            async for batch in _stream(connection, member, keys, prefix, following):
                failures = 0
                following = batch.revision + 1
                yield batch
        except _WatchEndedError as why:
            _log.warning("watch at etcd %s ended (%s): going on from revision %d", member.name, why, following)
        except grpc.aio.AioRpcError as error:
            if not is_stale_token(error):
                failure = failure_of(error, what="watch", member=member.name, address=connection.address)
                if not isinstance(failure, StoreUnavailableError):
                    raise failure from error
                _log.warning("%s: going on from revision %d", failure, following)
        connection.give_up(member)
        await asyncio.sleep(doubled_s(_FIRST_PAUSE_S, failures, _LONGEST_PAUSE_S))
        failures += 1


async def _stream(
    connection: EtcdConnection, member: Member, keys: KeySpace, prefix: str, start_revision: int
) -> AsyncIterator[WatchBatch]:
    metadata = await connection.metadata(member)
    key = keys.encode(prefix)
    create = rpc_pb2.WatchCreateRequest(
        key=key, range_end=end_of_prefix(key), start_revision=max(start_revision - 1, 1), fragment=True
    )
    call = member.watch.Watch(metadata=metadata)
    try:
        await heeding_cancellation(call.write(rpc_pb2.WatchRequest(create_request=create)))
        held: list[rpc_pb2.Event] = []
        while True:
            response = await heeding_cancellation(call.read())
            if not isinstance(response, rpc_pb2.WatchResponse):
                raise _WatchEndedError("end of stream")
            if response.canceled:
                connection.forget_token(metadata)
                if response.compact_revision:
                    raise CompactedError(start_revision, response.compact_revision)
                raise _WatchEndedError(response.cancel_reason or "cancelled")
            held.extend(response.events)
            if response.fragment:
                continue  # the rest of the same revisions follows
            for batch in _batches(keys, held):
                if batch.revision >= start_revision:
                    yield batch
            held = []
    except grpc.aio.AioRpcError as error:
        if is_stale_token(error):
            connection.forget_token(metadata)
        raise
    finally:
        call.cancel()


def _batches(keys: KeySpace, events: Sequence[rpc_pb2.Event]) -> list[WatchBatch]:
    return [
        WatchBatch(
            revision=revision,
            events=tuple(
                KeyEvent(
                    key=keys.decode(event.kv.key),
                    current=None if event.type == rpc_pb2.Event.DELETE else keys.key_value(event.kv),
                )
                for event in sorted(group, key=lambda event: event.kv.key)
            ),
        )
        for revision, group in itertools.groupby(events, key=lambda event: event.kv.mod_revision)
    ]
