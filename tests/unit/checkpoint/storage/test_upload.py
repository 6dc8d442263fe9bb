"""Files of file systems that are written as a stream.

Without it half an upload could pass as a file.
"""

from __future__ import annotations

import itertools
import uuid

from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.storage import upload
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.upload import _joined


@given(st.lists(st.binary(max_size=12)), st.integers(1, 10))
def test_small_buffers_are_joined_and_the_bytes_are_the_same(buffers: list[bytes], limit: int) -> None:
    before, upload._CALL_BYTES = upload._CALL_BYTES, limit
    try:
        joined = [bytes(one) for one in _joined([memoryview(buffers[0]), *buffers[1:]] if buffers else [])]
    finally:
        upload._CALL_BYTES = before
    assert b"".join(joined) == b"".join(buffers)
    assert all(len(a) + len(b) >= limit for a, b in itertools.pairwise(joined))
    assert all(one in buffers for one in joined if len(one) > limit)


def test_a_file_of_many_tensors_is_written_with_few_calls() -> None:
    storage = open_storage(f"memory://{uuid.uuid4()}")
    assert storage.write_file("f", (bytes([number % 256]) * 100 for number in range(5000))) == 500_000
    assert storage.read("f") == b"".join(bytes([number % 256]) * 100 for number in range(5000))
