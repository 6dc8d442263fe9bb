"""What drivers of fsspec raise, as one kind of OSError: what it is, whether asking again may help, and what to do.

The drivers are not imported: their errors are known by name, by HTTP status and by the code that an S3 answer carries.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainctl.core.plain import is_dict

_AGAIN = (
    "it is tried again for a while; see whether the storage has trouble, or the network between it and this machine"
)
_ENDPOINT = "check the address of the storage (AWS_ENDPOINT_URL) and that this machine can reach it"
_NEEDED = "reading, writing, listing and removing objects are needed there"
_RIGHTS = f"these credentials lack a right: {_NEEDED}"
_RIGHT_FOR: Mapping[str, str] = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject or s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
"""What the credentials have to allow, by the request that was refused."""
_WRONG = (
    "the credentials are wrong or have expired: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
)
_NONE = (
    "give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), or a role of the machine"
)
_BUCKET = "make the bucket, or correct the URI; buckets are never made here"
_REGION = "name the bucket's region (AWS_REGION) or its own endpoint"

_BY_CODE: Mapping[str, tuple[int, bool, str]] = {
    "NoSuchBucket": (errno.ENODEV, False, _BUCKET),
    "InvalidBucketName": (errno.ENODEV, False, _BUCKET),
    "InvalidAccessKeyId": (errno.EACCES, False, _WRONG),
    "SignatureDoesNotMatch": (errno.EACCES, False, _WRONG),
    "ExpiredToken": (errno.EACCES, False, _WRONG),
    "InvalidToken": (errno.EACCES, False, _WRONG),
    "TokenRefreshRequired": (errno.EACCES, False, _WRONG),
    "RequestTimeTooSkewed": (errno.EACCES, False, "the clock of this machine is wrong"),
    "PermanentRedirect": (errno.ENODEV, False, _REGION),
    "AuthorizationHeaderMalformed": (errno.ENODEV, False, _REGION),
    "AccessDenied": (errno.EACCES, False, _RIGHTS),
    "QuotaExceeded": (errno.EDQUOT, False, ""),
    "NotImplemented": (errno.ENOSYS, False, "this storage cannot do what is asked of it"),
    "IncompleteBody": (errno.EIO, True, _AGAIN),
    "BadDigest": (errno.EIO, True, _AGAIN),
    "XAmzContentSHA256Mismatch": (errno.EIO, True, _AGAIN),
    "OperationAborted": (errno.EBUSY, True, _AGAIN),
    "ConditionalRequestConflict": (errno.EBUSY, True, _AGAIN),
    "RequestTimeout": (errno.ETIMEDOUT, True, _AGAIN),
    "SlowDown": (errno.EBUSY, True, _AGAIN),
    "PreconditionFailed": (errno.EEXIST, False, ""),
}
_BY_NAME: Mapping[str, tuple[int, bool, str]] = {
    "ParamValidationError": (
        errno.ENODEV,
        False,
        "correct the URI: what stands where the bucket belongs is no name of one",
    ),
    "NoCredentialsError": (errno.EACCES, False, _NONE),
    "PartialCredentialsError": (errno.EACCES, False, _NONE),
    "CredentialRetrievalError": (errno.EACCES, True, _NONE),
    "ProfileNotFound": (errno.EACCES, False, _NONE),
    "EndpointConnectionError": (errno.EHOSTUNREACH, True, _ENDPOINT),
    "ConnectTimeoutError": (errno.EHOSTUNREACH, True, _ENDPOINT),
    "ClientConnectorError": (errno.EHOSTUNREACH, True, _ENDPOINT),
    "SSLError": (errno.EHOSTUNREACH, False, _ENDPOINT),
    "FSTimeoutError": (errno.ETIMEDOUT, True, _AGAIN),
    "ReadTimeoutError": (errno.ETIMEDOUT, True, _AGAIN),
    "HTTPClientError": (errno.EIO, True, _AGAIN),
    "ConnectionClosedError": (errno.EIO, True, _AGAIN),
    "ClientPayloadError": (errno.EIO, True, _AGAIN),
    "ClientConnectionError": (errno.EIO, True, _AGAIN),
    "IncompleteRead": (errno.EIO, True, _AGAIN),
    "IncompleteReadError": (errno.EIO, True, _AGAIN),
    "ResponseStreamingError": (errno.EIO, True, _AGAIN),
    "ResponseParserError": (errno.EIO, True, _AGAIN),
    "FlexibleChecksumError": (errno.EIO, True, _AGAIN),
}
_PASSING = frozenset({errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EPIPE, 121})
"""121 is EREMOTEIO, which s3fs makes of HTTP 500 and which not every system has."""


class StorageSaysNoError(OSError):
    """What a storage that is not on this machine refused.

    Attributes:
        again: asking again may help.
        hint: what a person can do.
    """

    def __init__(self, number: int, text: str, *, again: bool, hint: str) -> None:
        super().__init__(number, text)
        self.again = again
        self.hint = hint

    def __str__(self) -> str:
        return str(self.strerror)


def failure_of(error: Exception, where: str, endpoint: str = "") -> OSError:
    """The error as the port raises it: FileNotFoundError, FileExistsError or a ``StorageSaysNoError``.

    Args:
        error: whatever the driver raised.
        where: what was asked for, and of whom.
        endpoint: that was called; empty: the usual one.
    """
    if isinstance(error, StorageSaysNoError):
        return error
    number, again, hint, cause = _judged(error)
    said = _said(error)
    if said in where:  # it only repeats what was asked for
        said = _said(cause)
    text = f"{where}: {said}" + (f" (from {endpoint})" if endpoint and endpoint not in said else "")
    if number == errno.ENOENT:
        return FileNotFoundError(number, "there is no such file", where)
    if number == errno.EEXIST:
        return FileExistsError(number, "there is one already", where)
    return StorageSaysNoError(number, text, again=again, hint=hint)


def _judged(error: Exception) -> tuple[int, bool, str, BaseException]:
    """Number, whether to ask again, what to do; and the error of the chain that says so."""
    chain = list(_chain(error))
    for one in chain:
        code, status = _answer(one)
        if code in _BY_CODE:
            number, again, hint = _BY_CODE[code]
            return number, again, _right(chain) if hint == _RIGHTS else hint, one
        if status >= 500 or status == 429:
            return errno.EBUSY, True, _AGAIN, one
    for one in chain:
        names = [cls.__name__ for cls in type(one).__mro__]
        known = next((name for name in names if name in _BY_NAME), "")
        if known:
            return (*_BY_NAME[known], one)
    return (*_plain(error), error)


def _right(chain: Iterable[BaseException]) -> str:
    """Which right is missing, as far as an error of the chain says what was asked for."""
    asked = (str(getattr(one, "operation_name", "")) for one in chain)
    right = next((_RIGHT_FOR[name] for name in asked if name in _RIGHT_FOR), "")
    return f"these credentials lack a right ({right}): {_NEEDED}" if right else _RIGHTS


def _plain(error: Exception) -> tuple[int, bool, str]:
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT, False, ""
    if isinstance(error, FileExistsError):
        return errno.EEXIST, False, ""
    if isinstance(error, PermissionError):
        # Where the answer says no more: one to HEAD has no body.
        return errno.EACCES, False, f"{_right(_chain(error))}; or {_WRONG}"
    if isinstance(error, (TimeoutError, ConnectionError)):
        return errno.ETIMEDOUT, True, _AGAIN
    if isinstance(error, OSError):
        number = error.errno or errno.EIO
        return number, number in _PASSING, ""
    return errno.EIO, False, ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _answer(error: BaseException) -> tuple[str, int]:
    """Code and HTTP status of an S3 answer; empty and 0 of anything else."""
    response: Any = getattr(error, "response", None)
    if not is_dict(response):
        return "", 0
    said, around = response.get("Error"), response.get("ResponseMetadata")
    code = str(said.get("Code", "")) if is_dict(said) else ""
    status: object = around.get("HTTPStatusCode") if is_dict(around) else None
    return code, status if isinstance(status, int) else 0


def _said(error: BaseException) -> str:
    first, *rest = str(getattr(error, "strerror", None) or error).split("\n", 2)
    text = f"{first} {rest[0]}" if rest and first.endswith(":") else first  # then the reason is in the second line
    name = type(error).__name__
    return text if isinstance(error, OSError) and text else f"{name}: {text}" if text else name
