"""The pages of the docs in pieces: blocks with what is to happen with them, commands, links.

What a block is follows from the words behind its fence:

=====================  ====================================================================================
```` ```sh run ````     executed by ``tests/e2e/test_docs.py``, in the order of the page, in one folder
```` ```python run ```` the same, by Python
```` ```text output ``` the output of the block before it: these lines in this order, ``...`` stands for anything
```` ```LANG file=F ``` the block is written to the file F of that folder, a job file before it is checked as any
```` ```yaml other ```  YAML that is no job file
=====================  ====================================================================================

All others are examples: YAML is a job file or a part of one, Python compiles, commands fit the real grammar.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("cli.md", "reference")
"""Written from the code; their commands are the grammar itself."""
SHELLS = ("sh", "bash", "shell")
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        page, line: where its text begins.
        words: behind the fence, the language first; empty if there is none.
        text: what stands in it, without the indentation of the fence.
    """

    page: Path
    line: int
    words: Sequence[str]
    text: str

    @property
    def language(self) -> str:
        """The first word behind the fence."""
        return self.words[0] if self.words else ""

    @property
    def runs(self) -> bool:
        """Whether it is executed."""
        return "run" in self.words

    @property
    def file(self) -> str:
        """Name of the file that it is the text of; empty if it is none."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All of them."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def written_pages() -> list[Path]:
    """Those that people write."""
    return [page for page in pages() if not any(page.is_relative_to(ROOT / "docs" / name) for name in GENERATED)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("text")) + 1,
            words=tuple(match["info"].split()),
            text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
        )
        for match in _BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Targets of its links; code is not looked at."""
    return _LINK.findall(_INLINE.sub("", prose(page)))


def anchors(page: Path) -> set[str]:
    """What a link can name behind ``#``: the headings, spelled as GitHub does."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in running text, with single spaces."""
    return [re.sub(r"\s+", " ", code) for code in _INLINE.findall(prose(page))]


def inline_commands(page: Path) -> list[str]:
    """Commands of ours in running text; often only their beginning."""
    return [code for code in inline_code(page) if code.startswith("trainctl ")]


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a shell block, each in words; redirections, comments and substitutions are taken apart."""
    if block.language not in ("", "console", *SHELLS):
        return
    prompt = block.language == "console"
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    for line in lines:
        if prompt and not line.startswith("$ "):
            continue
        if not block.language and not re.match(r"(trainctl|make) [\w-]", line):
            continue  # a drawing, an output
        yield from _simple_commands(line.removeprefix("$ "))


def _simple_commands(line: str) -> Iterator[list[str]]:
    # What stands within "$( )" is a command, too; its output, and a variable's value, may be a number.
    line = re.sub(r"\$\(\(.*?\)\)|\$\w+|\$\{[^}]*\}", "1", line)
    inner = re.findall(r"\$\(([^()]*)\)", line)
    for text in (re.sub(r"\$\([^()]*\)", "1", line), *inner):
        lexer = shlex.shlex(re.sub(r"[0-2]?>(&[0-2])?", ">", text), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in lexer:
            if set(token) <= set("();<>|&"):
                yield words
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", token):
                words.append(token)
        yield words
