"""The text of a join token. Without it a machine could trust another authority than the one that it was given."""

from __future__ import annotations

import base64

import pytest

from trainctl.core.join_token import MAX_CHARACTERS, JoinText, read_join_text

CREDENTIAL = "node7.abcdefghijklmnop"


@pytest.mark.parametrize("size", [1, 2, 3, 47, 48, 49, 1000])
def test_it_comes_back_as_it_was(size: int) -> None:
    text = JoinText(bytes(range(256)) * 4 if size == 1000 else b"\xfb" * size, CREDENTIAL)
    assert read_join_text(f"  {text}\n") == text


def test_it_shows_no_secret() -> None:
    assert repr(JoinText(b"x", CREDENTIAL)) == "JoinText(node7.***)"


def test_the_authority_as_pem_has_lines_of_64() -> None:
    authority = bytes(range(100))
    begin, *lines, end, last = JoinText(authority, CREDENTIAL).authority_pem.decode().split("\n")
    assert (begin, end, last) == ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "")
    assert [len(line) for line in lines] == [64, 64, 8]
    assert base64.b64decode("".join(lines)) == authority


def of_length(characters: int) -> str:
    rest = len(f"tctl-join::{CREDENTIAL}")
    return f"tctl-join:{'A' * (characters - rest)}:{CREDENTIAL}"


def test_it_may_be_as_long_as_it_says() -> None:
    assert MAX_CHARACTERS == 16_384
    length = next(n for n in range(MAX_CHARACTERS, 0, -1) if (n - len(f"tctl-join::{CREDENTIAL}")) % 4 == 0)
    assert read_join_text(of_length(length)).credential == CREDENTIAL
    with pytest.raises(ValueError, match="found 16388 characters"):
        read_join_text(of_length(MAX_CHARACTERS + 4))


@pytest.mark.parametrize(
    "text",
    ["", "tctl-join:AAAA", f"tctl-join::{CREDENTIAL}", "tctl-join:AAAA:node7.short", "tctl-join:AA!A:" + CREDENTIAL],
)
def test_what_is_none_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected tctl-join:AUTHORITY:ID\.SECRET, found") as refused:
        read_join_text(text)
    assert not text or text not in str(refused.value)


def test_an_authority_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="its authority is no base64url text"):
        read_join_text(f"tctl-join:AAAAA:{CREDENTIAL}")
