"""What the docs show is what the code accepts; the blocks that are executed are so by ``tests/e2e/test_docs.py``.

Without it people would copy commands and job files from the docs that are refused.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from architecture.pages import ROOT, Block, anchors, blocks, commands, inline_commands, links, pages, written_pages
from trainctl.cli.grammar.arguments import HelpWanted
from trainctl.cli.grammar.parser import build_parser
from trainctl.controller.domain.spec import parse_job
from trainctl.controller.domain.spec.defaults import effective
from trainctl.controller.domain.view import ClusterView
from trainctl.controller.jobs.preview import preview
from trainctl.core.codec import camel
from trainctl.core.errors import UsageError
from trainctl.core.records.spec import JobSpec
from trainctl.core.records.train_spec import TrainSpec

LANGUAGES = {"", "sh", "bash", "shell", "console", "yaml", "python", "text", "json", "toml", "ini", "promql", "proto"}
MARKS = {"run": {"sh", "python"}, "output": {"text"}, "other": {"yaml"}}
WRITTEN = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in written_pages()]
ALL = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


grammar = cache(build_parser)


def of_language(*languages: str) -> list[Any]:
    found = [block for page in written_pages() for block in blocks(page) if block.language in languages]
    return [pytest.param(block, id=block.where) for block in found]


@pytest.mark.parametrize("page", ALL)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}: no such heading; there are {anchors(target)}"


@pytest.mark.parametrize("page", WRITTEN)
def test_fences_say_what_is_known(page: Path) -> None:
    assert page.read_text().count("```") == 2 * len(blocks(page)), "a fence is not closed"
    former: Block | None = None
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: language {block.language!r}"
        for word in block.words[1:]:
            assert word.startswith("file=") or block.language in MARKS.get(word, ()), f"{block.where}: {word!r}"
        if "output" in block.words:
            assert former is not None, f"{block.where}: there is no block that it is the output of"
            assert former.runs, f"{block.where}: the block before it is not run"
        former = block


@pytest.mark.parametrize("block", of_language("yaml"))
def test_job_files_are_valid(block: Block) -> None:
    for text in re.split(r"^---$", block.text, flags=re.MULTILINE):
        document = yaml.safe_load(text)
        if "other" in block.words:
            assert "TrainJob" not in text, "a job file is to be checked"
            continue
        if "apiVersion" not in document:
            text = json.dumps(completed(block, document))  # JSON is YAML, and its texts stay texts
        job = effective(parse_job(text, source=block.where))
        plan = preview(job, ClusterView(), {}, workdir="/jobs/one", resume=None)
        assert any(job.metadata.name in line for line in plan)


def completed(block: Block, part: Mapping[str, Any]) -> dict[str, Any]:
    """A job file around a part of one: of the whole, of ``spec`` or of ``spec.train``."""
    in_spec, in_train = ({camel(f.name) for f in fields(record)} for record in (JobSpec, TrainSpec))
    spec: dict[str, Any]
    if set(part) <= {"metadata", "spec"}:
        spec = dict(part.get("spec", {}))
    elif set(part) <= in_spec:
        spec = dict(part)
    else:
        assert set(part) <= in_train, f"{block.where}: neither a job file nor a part of one; if meant so: ```yaml other"
        spec = {"train": dict(part)}
    if "command" not in spec and "launch" not in spec:
        base = {"task": "llama", "model": {"layers": 2, "hidden": 32, "heads": 2, "context": 32}, "steps": 100}
        data = {"data": {"uri": "python-stdlib"}, "tokenizer": {"kind": "bytes"}}
        batch = {"batch": {"sequences": 16, "microBatches": 16}}
        own = spec.get("train", {})
        spec["train"] = {**(base if "task" not in own else {"steps": 100}), **data, **batch, **own}
    if "launch" in spec:
        spec.setdefault("command", ["python", "train.py"])
    metadata = part.get("metadata", {"name": "example"})
    return {"apiVersion": "trainctl.dev/v1", "kind": "TrainJob", "metadata": metadata, "spec": spec}


def test_the_first_job_is_the_one_that_the_guide_explains() -> None:
    shown = [block.text for block in blocks(ROOT / "docs" / "guide.md") if block.file == "job.yaml"]
    assert shown == [(ROOT / "docs" / "examples" / "first.yaml").read_text()]


@pytest.mark.parametrize("block", of_language("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize("block", of_language("", "sh", "bash", "shell", "console"))
def test_commands_fit_the_grammar(block: Block) -> None:
    for words in commands(block):
        if words[:1] == ["make"]:
            named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(named) <= TARGETS, f"{block.where}: {' '.join(words)}"
        elif words[:1] == ["trainctl"]:
            try:
                grammar().parse_args(words[1:], namespace=argparse.Namespace(parser=grammar()))
            except HelpWanted:
                continue
            except UsageError as error:
                pytest.fail(f"{block.where}: {' '.join(words)}: {error}")


@pytest.mark.parametrize("page", WRITTEN)
def test_commands_in_the_text_exist(page: Path) -> None:
    for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
        assert target in TARGETS, f"make {target}"
    for command in inline_commands(page):
        parser: argparse.ArgumentParser = grammar()
        for word in command.split()[1:]:
            below = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
            if word.startswith("-"):
                known = {option for action in parser._actions for option in action.option_strings}
                assert word.partition("=")[0].strip(",.") in known, f"`{command}`: {word}"
            elif below is not None:
                assert word in below, f"`{command}`: {word} is not one of {sorted(below)}"
                parser = below[word]


PAGE = """# A page: one
```sh run
trainctl get jobs --timeout ${X} | head -n 1 > jobs.txt  # all
FORM=json trainctl describe \\
  first -o $(trainctl version --client -o name) 2>&1 && make demo
```
1. a list

   ```yaml file=job.yaml
   a:
     b
   ```
See [there](#a-page-one), `trainctl
cancel`, and `[not](a-link)`.
```
 trainctl ── controller
trainctl explain first
```
"""


def test_a_page_is_read_as_it_is_meant(tmp_path: Path) -> None:
    (page := tmp_path / "page.md").write_text(PAGE)
    shell, job, drawing = blocks(page)
    assert [block.line for block in (shell, job, drawing)] == [3, 10, 16]
    assert (shell.runs, job.runs, job.file, job.text) == (True, False, "job.yaml", "a:\n  b\n")
    found = [words for words in commands(shell) if words[:1] == ["trainctl"] or words[:1] == ["make"]]
    described = ["trainctl", "describe", "first", "-o", "1"]
    version = ["trainctl", "version", "--client", "-o", "name"]
    assert found == [["trainctl", "get", "jobs", "--timeout", "1"], described, ["make", "demo"], version]
    assert list(commands(drawing)) == [["trainctl", "explain", "first"]]
    assert (links(page), anchors(page), inline_commands(page)) == (["#a-page-one"], {"a-page-one"}, ["trainctl cancel"])
