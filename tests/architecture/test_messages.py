"""What people are told, read as one text: its words, and the commands, options and fields that it names.

Without it people search the docs for a word that is said nowhere else, and type a command that does not exist.
"""

import argparse
import ast
import dataclasses
import re
import typing
from functools import cache
from typing import Any

import pytest

from architecture.messages import messages, texts
from architecture.pages import ROOT
from architecture.reference import agent_metrics
from trainctl.cli.grammar.parser import build_parser
from trainctl.controller.metrics.catalogue import CONTROLLER_METRICS, JOB_METRICS
from trainctl.core.codec import camel
from trainctl.core.records.spec import TrainJob

WORDS = ROOT / "docs" / "reference" / "words.md"
FREE = {"spec.env", "spec.train.model.options", "spec.train.optimizer.options"}
"""Mappings whose keys are the user's."""
PROSE = {"already", "authority", "controller", "looks", "saves", "that", "version", "wrote"}
"""What follows the name of the program where no command is meant."""
VERBS = "show|shows|lists|says|tells|takes|starts|stops|makes|adds|chooses|prints|writes|has"
_COMMAND = re.compile(r"(?<![\w./$-])(?<!-c )trainctl(?= [a-z-])((?: [^\s`;:,()]+)+)")
_FIELD = re.compile(r"(?<![\w./])spec(?:\.[A-Za-z]+)+")
_OPTION = re.compile(r"--?[a-z][a-z-]*")

grammar = cache(build_parser)


def unwanted() -> list[str]:
    """What the table of words says not to say."""
    rows = [line.strip("| ").split("|") for line in WORDS.read_text().splitlines() if line.startswith("| ")]
    return [word for row in rows[1:] if len(row) == 3 for word in re.findall(r"`([^`]+)`", row[2])]


def says(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def test_nothing_is_said_that_the_table_of_words_has_another_word_for() -> None:
    assert len(unwanted()) > 15, "the table is not read as it is meant"
    found = [
        f"{one.where}: {word!r} in {one.text!r}" for one in messages() for word in unwanted() if says(word, one.text)
    ]
    assert not found, "\n".join(found)


def wrong_command(words: list[str]) -> str:
    """What is wrong with a command in a sentence; what follows it may be prose."""
    parser: argparse.ArgumentParser = grammar()
    for word in words:
        below = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if _OPTION.match(word):
            known = {option for action in parser._actions for option in action.option_strings}
            if word.partition("=")[0].rstrip(".?{}") not in known:
                return f"{parser.prog} has no {word}"
        elif below is not None:
            if word.startswith("{"):
                return ""  # it is known at run time
            if word.partition("{")[0].rstrip(".") not in below:
                return f"{parser.prog}: {word} is not one of {sorted(below)}"
            parser = below[word.partition("{")[0].rstrip(".")]
    return ""


def wrong_commands(text: str) -> list[str]:
    named = [match[1].split() for match in _COMMAND.finditer(text)]
    return [wrong for words in named if words[0] not in PROSE and (wrong := wrong_command(words))]


def test_commands_that_a_message_names_exist() -> None:
    found = [f"{one.where}: {wrong} in {one.text!r}" for one in messages() for wrong in wrong_commands(one.text)]
    assert not found, "\n".join(found)
    assert any("`trainctl explain {}`" in one.text for one in messages()), "no message was looked at"


def test_a_command_inside_a_sentence_stands_in_backticks() -> None:
    bare = re.compile(rf"(?<![`\w./-])trainctl (?!%s|{'|'.join(PROSE)})[^`;:,]*? (?:{VERBS}) ")
    found = [f"{one.where}: {one.text!r}" for one in messages() if bare.search(f"{one.text} ")]
    assert not found, "\n".join(found)


def wrong_field(path: str) -> bool:
    """Whether the job file has no such field."""
    known: Any = TrainJob
    for at, name in enumerate(parts := path.split(".")):
        if not dataclasses.is_dataclass(known):
            return ".".join(parts[:at]) not in FREE
        fields = {camel(key): hint for key, hint in typing.get_type_hints(known).items()}
        if name not in fields:
            return True
        known = fields[name]
    return False


def test_fields_that_a_message_names_exist() -> None:
    named = [(one, path) for one in messages() for path in _FIELD.findall(one.text)]
    assert len(named) > 50, "no message was looked at"
    found = [f"{one.where}: {path} in {one.text!r}" for one, path in named if wrong_field(path)]
    assert not found, "\n".join(found)


METRICS = [(m.name, m.help) for m in (*JOB_METRICS, *CONTROLLER_METRICS)] + [
    (row[0].strip("`"), row[3]) for row in agent_metrics()
]


@pytest.mark.parametrize(("name", "text"), METRICS, ids=[name for name, _ in METRICS])
def test_the_help_of_a_metric_stands_alone_and_says_its_unit(name: str, text: str) -> None:
    for unit in ("seconds", "bytes"):
        if re.search(rf"_{unit}(_total)?$", name):
            assert unit in text.lower(), "its unit is missing"
    assert text[0].isupper() or text[0].isdigit()
    assert text.endswith(".")
    assert not re.search(r"\b(the same|that one|next three|it was|of it|its files)\b", text, re.IGNORECASE), "of what?"


def test_messages_are_found_and_judged() -> None:
    tree = ast.parse(
        '"""No text of ours."""\nX = "a"\n"""Nor this."""\nraise E(f"rank {x!r} {f(\'died with it\')} is gone")\n'
    )
    assert [text for _, text in texts(tree)] == ["rank {} {} is gone", "died with it"]
    assert says("died with", "rank 1 died with it")
    assert not says("pid", "rapid pids")
    assert wrong_commands("try `trainctl get events {}`: it shows them") != []
    assert wrong_commands("(trainctl local up --secret DIR)") != []
    assert wrong_commands("`trainctl logs {} -f`; the same trainctl version") == []
    assert [wrong_field(path) for path in ("spec.train.steps", "spec.env.HOME", "spec.train.step")] == [
        False,
        False,
        True,
    ]
