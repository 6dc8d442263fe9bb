"""What happens around every call: token, wire version, deadline, our errors as rich statuses, counters."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from trainctl.core.codec import WireError
from trainctl.core.errors import (
    InternalError,
    PermissionDeniedError,
    PreconditionError,
    TrainctlError,
    UnavailableError,
    UsageError,
)
from trainctl.protos.status import code_of, status_of, trailing_metadata
from trainctl.protos.version import AUTH_HEADER, REQUEST_HEADER, WIRE_HEADER, WIRE_VERSION, package_version

_log = logging.getLogger(__name__)
OPEN_SERVICES = ("/grpc.health.v1.Health/",)
"""Called by probes that have no token."""
OWN_SERVICES = "/trainctl.v1."
LONGEST_UNARY_S = 60.0
"""Imposed on unary calls that come without a deadline."""


class UnauthenticatedError(PermissionDeniedError):
    """The call has no token, or not this controller's."""

    code = "UNAUTHENTICATED"


class VersionMismatchError(PreconditionError):
    """Caller and controller speak different wires."""

    code = "VERSION_MISMATCH"


class DeadlineExceededError(UnavailableError):
    """The call took longer than its deadline, or than any unary call may."""

    code = "DEADLINE_EXCEEDED"


class CallMetrics(Protocol):
    """Where calls are counted."""

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        ...

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Adds to a histogram."""
        ...


@dataclass(frozen=True, slots=True)
class _Method:
    service: str
    name: str


class Gate(aio.ServerInterceptor):
    """Checks the caller, then runs the call and turns what it raises into a status.

    Args:
        token: every call must carry it.
        metrics: counts finished calls.
    """

    def __init__(self, token: str, metrics: CallMetrics) -> None:
        self._expected = f"Bearer {token}".encode()
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        if handler is None or path.startswith(OPEN_SERVICES):
            return handler
        refusal = self._refusal(path, handler_call_details)
        if refusal is None and not path.startswith(OWN_SERVICES):
            return handler
        _, service, name = path.split("/")
        return self._wrap(handler, _Method(service, name), refusal)

    def _refusal(self, path: str, details: grpc.HandlerCallDetails) -> TrainctlError | None:
        metadata: Mapping[str, Any] = {str(k): v for k, v in details.invocation_metadata or ()}
        given = str(metadata.get(AUTH_HEADER, "")).encode()
        if not hmac.compare_digest(given, self._expected):
            what = "another token" if given else "no token"
            return UnauthenticatedError(
                f"the call carries {what}: expected this controller's",
                hint="the token is in the file `token` of the controller's folder; --token-file names it",
            )
        wire = str(metadata.get(WIRE_HEADER, ""))
        if path.startswith(OWN_SERVICES) and wire != str(WIRE_VERSION):
            found = f"wire version {wire}" if wire else "no wire version"
            return VersionMismatchError(
                f"expected wire version {WIRE_VERSION} (controller {package_version()}), the caller sent {found}",
                hint="use the same trainctl version on both sides; `trainctl version` shows them",
            )
        return None

    def _wrap(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: _Method, refusal: TrainctlError | None
    ) -> grpc.RpcMethodHandler[Any, Any]:
        coders = {
            "request_deserializer": _reading(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        kind = (handler.request_streaming, handler.response_streaming)
        if kind == (False, False):
            unary = self._unary(handler.unary_unary, method, refusal)
            return grpc.unary_unary_rpc_method_handler(unary, **coders)
        if kind == (False, True):
            streaming = self._streaming(handler.unary_stream, method, refusal)
            return grpc.unary_stream_rpc_method_handler(streaming, **coders)
        both = self._streaming(handler.stream_stream, method, refusal)
        return grpc.stream_stream_rpc_method_handler(both, **coders)

    def _unary(self, behaviour: Any, method: _Method, refusal: TrainctlError | None) -> Any:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            began_s = time.monotonic()
            code = grpc.StatusCode.OK
            try:
                return await _within_deadline(behaviour, request, context, refusal)
            except Exception as error:
                code = await _abort(context, error, method)
                return None
            finally:
                self._count(method, code)
                took_s = time.monotonic() - began_s
                self._metrics.observe(
                    "grpc_server_handling_seconds", took_s, grpc_service=method.service, grpc_method=method.name
                )

        return call

    def _streaming(self, behaviour: Any, method: _Method, refusal: TrainctlError | None) -> Any:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            code = grpc.StatusCode.CANCELLED
            try:
                if refusal is not None:
                    raise refusal
                if isinstance(request, WireError):
                    raise request
                if inspect.isasyncgenfunction(behaviour):
                    # Closed explicitly: when the client hangs up, the generator's clean-up runs now, not some day.
                    async with contextlib.aclosing(behaviour(request, context)) as answers:
                        async for answer in answers:
                            await context.write(answer)
                else:
                    await behaviour(request, context)
                code = grpc.StatusCode.OK
            except Exception as error:
                code = await _abort(context, error, method)
            finally:
                self._count(method, code)

        return call

    def _count(self, method: _Method, code: grpc.StatusCode) -> None:
        self._metrics.inc(
            "grpc_server_handled_total",
            grpc_service=method.service,
            grpc_method=method.name,
            grpc_code=code.name,
        )


def _reading(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Hands on, instead of a message, why there is none: gRPC itself would log a traceback and answer UNKNOWN."""
    if deserializer is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return WireError(f"expected a protobuf message, found {len(data)} bytes that are none: {error}")

    return read


async def _within_deadline(behaviour: Any, request: Any, context: Any, refusal: TrainctlError | None) -> Any:
    if refusal is not None:
        raise refusal
    if isinstance(request, WireError):
        raise request
    left_s = context.time_remaining()
    limit_s = LONGEST_UNARY_S if left_s is None else min(LONGEST_UNARY_S, left_s)
    try:
        async with asyncio.timeout(limit_s):
            return await behaviour(request, context)
    except TimeoutError as error:
        raise DeadlineExceededError(f"no answer within {limit_s:.1f} s") from error


async def _abort(context: aio.ServicerContext[Any, Any], error: Exception, method: _Method) -> grpc.StatusCode:
    """Ends the call with the error's status and returns its code."""
    if isinstance(error, aio.AbortError):
        raise error
    known = _as_ours(error, method, _request_id(context))
    code = code_of(known)
    try:
        await context.abort(code, status_of(known).message, trailing_metadata(known))
    except aio.AbortError:
        # The status is set; raising it further would only log a traceback.
        return code
    return code


def _request_id(context: aio.ServicerContext[Any, Any]) -> str:
    """The caller's name for this call, shortened to what a log can bear."""
    metadata: Mapping[str, Any] = {str(k): v for k, v in context.invocation_metadata() or ()}
    return str(metadata.get(REQUEST_HEADER, ""))[:100]


def _as_ours(error: Exception, method: _Method, request_id: str) -> TrainctlError:
    if isinstance(error, WireError):
        return UsageError(f"{method.name}: {error}", hint="use the same trainctl version on both sides")
    if isinstance(error, TrainctlError):
        refusal = {"request_id": request_id, "reason": error.code, "why": str(error)[:500]}
        _log.info("%s refused", method.name, extra=refusal)
        return error
    _log.error("%s failed", method.name, exc_info=error, extra={"request_id": request_id})
    return InternalError(
        f"{method.name} failed: {type(error).__name__}: {error}", hint="the controller's log has the traceback"
    )
