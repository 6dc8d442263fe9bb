"""Wrong job files that no editor would keep as they are: bytes that are no text, and sizes that nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_HEAD = b"metadata: {name: a}\nspec:\n"
_JOB = _HEAD + b"  train: {steps: 0}\n"


def _numbered(line: str, count: int) -> bytes:
    return "".join(line.format(i) for i in range(count)).encode()


MADE: Mapping[str, bytes] = MappingProxyType(
    {
        "bytes/latin-1": "metadata:\n  name: a\n  labels: {team: Müller}\n".encode("latin-1"),
        "bytes/utf-16": _JOB.decode().encode("utf-16"),
        "bytes/utf-16-without-mark": _JOB.decode().encode("utf-16-le"),
        "bytes/utf-8-mark-first": b"\xef\xbb\xbf" + _JOB,
        "bytes/utf-8-mark-inside": _HEAD + b"\xef\xbb\xbf  train: {steps: 0}\n",
        "bytes/executable": b"\x7fELF\x02\x01\x01\x00\xd0\xff",
        "bytes/gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        "bytes/zero-byte": b"metadata: {name: a}\n\0",
        "bytes/escape-code": b"metadata: {name: \x1b[31mred}\n",
        "bytes/bell-in-comment": b"metadata: {name: a} # ding \x07\n",
        "bytes/delete": b"metadata: {name: a\x7f}\n",
        "bytes/control-of-latin-1": "metadata: {name: a}\nspec: {image: '\x9b31m'}\n".encode(),
        "bytes/no-character": "metadata: {name: '\uffff'}\n".encode(),
        "bytes/half-a-character": b"metadata: {name: \xed\xa0\x80}\n",
        "bytes/truncated-character": b"metadata: {name: a}\nspec: {image: \xe2\x82",
        "bytes/carriage-returns": _JOB.replace(b"\n", b"\r\n"),
        "bytes/old-mac": _JOB.replace(b"\n", b"\r"),
        "bytes/right-to-left": "metadata: {name: 'a\u202eb'}\n".encode(),
        "sizes/a-byte-too-large": b"#" * (256 * 1024 + 1),
        "sizes/largest-comment": b"#" * (256 * 1024),
        "sizes/ten-megabytes": b"# " + b"x" * 10_000_000,
        "sizes/key": _HEAD + b"  ? " + b"k" * 200_000 + b"\n  : 1\n",
        "sizes/key-on-one-line": _HEAD + b"  " + b"k" * 2000 + b": 1\n",
        "sizes/value": _HEAD + b"  recovery: {profile: " + b"v" * 200_000 + b"}\n",
        "sizes/number": _HEAD + b"  train: {steps: " + b"9" * 200_000 + b"}\n",
        "sizes/yaml-version": b"%YAML 1." + b"9" * 5000 + b"\n---\n" + _JOB,
        "sizes/betas": _HEAD + b"  train: {optimizer: {betas: [" + b"1, " * 5000 + b"]}}\n",
        "sizes/command": _HEAD + b"  command: [" + b"x, " * 5000 + b"]\n  launch: {mode: session}\n",
        "sizes/unknown-fields": _numbered("k{}: 1\n", 5000),
        "sizes/values": _numbered("k{}: 1\n", 15_000),
        "sizes/deep-lists": b"x: " + b"[" * 2000 + b"]" * 2000,
        "sizes/deep-lists-never-closed": b"[" * 5000,
        "sizes/deep-mappings": b"{a: " * 5000,
        "sizes/deep-dashes": b"- " * 5000 + b"x",
        "sizes/deep-indentation": b"".join(b" " * i + b"a:\n" for i in range(500)),
        "sizes/deep-keys": b"? " * 5000 + b"x",
        "sizes/twenty-levels": _HEAD + b"  train: {options: " + b"{a: " * 17 + b"1" + b"}" * 17 + b"}\n",
        "sizes/alias-bomb-of-lists": b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n".encode() for i in range(1, 11)),
        "sizes/aliases-of-themselves": b"a: &a [" + b"*a, " * 90 + b"]\n",
        "sizes/quotes-never-closed": b"a: '" + b"x\n" * 50_000,
        "sizes/duplicate-keys": b"metadata: {name: a}\n" * 5000,
        "sizes/dots-in-override": b"# --set " + b"a." * 10_000 + b"b=1\n" + _JOB,
    }
)
"""Name of the case -> content of the file."""
