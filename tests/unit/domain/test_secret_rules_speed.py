"""A large text in a job file is searched for passwords in time that grows with it only.

Without it one large job file could hold the controller up for minutes.
"""

import time

import pytest

from trainctl.controller.domain.spec.secret_rules import _has_password


@pytest.mark.parametrize("text", ["a" * 2_000_000, "a://" * 500_000, "http://" + "b" * 2_000_000, "a:" * 1_000_000])
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    began_s = time.process_time()
    assert not _has_password(text)
    assert time.process_time() - began_s < 2.0


def test_where_a_password_is_found() -> None:
    for text in ("s3://key:secret@bucket/a", "see http://u:p@h", "x://y z://:p@h"):
        assert _has_password(text), text
    for text in ("http://host:80/path", "http://user@host/", "a:b@c", "://u:p@h", "http://h/a:b@c"):
        assert not _has_password(text), text
