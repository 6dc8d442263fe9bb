"""Without it a command could go to another controller than the one the user chose, or send a token in the clear."""

import json
from pathlib import Path

import pytest
import yaml

from unit.cli.conftest import Cli
from unit.cli.fake_controller import TOKEN, FakeController


@pytest.fixture
def nowhere(environment: dict[str, str]) -> dict[str, str]:
    """The environment names no controller: only flags and contexts do."""
    del environment["TRAINCTL_ADDRESS"], environment["TRAINCTL_TOKEN_FILE"]
    return environment


def test_contexts_from_the_first_to_the_last(
    cli: Cli, controller: FakeController, nowhere: dict[str, str], tmp_path: Path
) -> None:
    controller.add_job("a")
    token = tmp_path / "lab.token"
    token.write_text(TOKEN)
    assert "no contexts" in cli("config", "view").err
    assert cli("config", "current-context").code == 3
    done = cli("config", "set-context", "lab", "--address", controller.address, "--token-file", str(token))
    assert done.code == 0, done.err
    config = Path(nowhere["TRAINCTL_CONFIG"])
    assert config.stat().st_mode & 0o777 == 0o600
    assert cli("get", "jobs").code == 7  # not chosen yet
    assert cli("get", "jobs", "--context", "lab", "-o", "name").out == "a\n"
    nowhere["TRAINCTL_CONTEXT"] = "lab"
    assert cli("get", "jobs", "-o", "name").out == "a\n"
    del nowhere["TRAINCTL_CONTEXT"]
    assert cli("config", "use-context", "lab").code == 0
    assert cli("config", "current-context").out == "lab\n"
    assert cli("get", "jobs", "-o", "name").out == "a\n"
    assert cli("config", "set-context", "lab", "--timeout", "3s").code == 0  # the rest of it stays
    assert yaml.safe_load(config.read_text())["contexts"]["lab"].keys() == {"address", "tokenFile", "timeout"}
    assert cli("config", "view").out.splitlines()[1].split()[:3] == ["*", "lab", controller.address]
    assert cli("config", "use-context", "-").code == 0
    assert cli("get", "jobs").code == 7
    assert cli("config", "set-context", "lab", "--remove").code == 0
    assert "contexts: {}" in cli("config", "view", "-o", "yaml").out


def origins(cli: Cli, *arguments: str) -> dict[str, tuple[str | None, str]]:
    data = json.loads(cli("config", "explain", "-o", "json", *arguments).out)
    return {each["name"]: (each["value"], each["origin"]) for each in data["settings"]}


def test_flags_win_over_the_environment_and_that_over_the_file(cli: Cli, nowhere: dict[str, str]) -> None:
    config = Path(nowhere["TRAINCTL_CONFIG"])
    assert origins(cli)["address"] == (None, "default")
    assert origins(cli)["timeout"] == ("10s", "default")
    config.write_text("currentContext: lab\ncontexts: {lab: {address: 'file:1', timeout: 1s}, b: {address: 'b:1'}}\n")
    here = f"context lab in {config}"
    assert origins(cli)["address"] == ("file:1", here)
    assert origins(cli)["context"] == ("lab", str(config))
    assert origins(cli, "--context", "b")["address"] == ("b:1", f"context b in {config}")
    nowhere["TRAINCTL_ADDRESS"] = "env:1"
    assert origins(cli)["address"] == ("env:1", "TRAINCTL_ADDRESS")
    assert origins(cli)["timeout"] == ("1s", here)
    assert origins(cli, "--address", "flag:1", "--timeout", "2s")["address"] == ("flag:1", "--address")
    assert "(the local installation's)" in cli("config", "explain").out
    assert origins(cli)["configFile"] == (str(config), "TRAINCTL_CONFIG")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("currentContext: x", ["currentContext: there is no context 'x'"]),
        ("context: x", ["context: unknown field", "contexts"]),
        ("contexts: [a]", ["expected a mapping of names"]),
        ("contexts: {a: {adress: h:1}}", ["contexts.a.adress", 'did you mean "address"?']),
        (
            "contexts: {a: {address: 5}, b: 3}",
            ["contexts.a.address: expected a text", "contexts.b: expected a mapping"],
        ),
        ("[", ["expected the node content"]),
        ("a: &a {b: 1}\nc: *a", ["anchors are not supported"]),
        ("just text", ["expected a mapping"]),
        ("#" * 300_000, ["256 KiB"]),
    ],
)
def test_a_bad_file_is_one_error_with_all_problems(
    cli: Cli, nowhere: dict[str, str], text: str, words: list[str]
) -> None:
    Path(nowhere["TRAINCTL_CONFIG"]).write_text(text)
    done = cli("get", "jobs")
    assert done.code == 2, done.err
    assert done.err.count("error: ") == 1
    for word in (*words, nowhere["TRAINCTL_CONFIG"]):
        assert word in done.err


def test_what_cannot_be_is_refused(cli: Cli, nowhere: dict[str, str], tmp_path: Path) -> None:
    unknown = cli("get", "jobs", "--context", "lab")
    assert unknown.code == 3
    assert "--context: there is no context 'lab'" in unknown.err
    assert cli("config", "use-context", "lab").code == 3
    assert cli("config", "set-context", "lab", "--remove").code == 3
    assert cli("config", "set-context", "lab", "--remove", "--address", "h:1").code == 2
    assert cli("config", "set-context", "lab", "--address", "127.0.0.1:1", "--ca-file", "/ca.pem").code == 0
    refused = cli("get", "jobs", "--context", "lab")
    assert refused.code == 5
    assert "cannot read /ca.pem" in refused.err
    assert "context lab" in refused.err
    (tmp_path / "ca.pem").write_text("no certificate")
    wrong = cli("get", "jobs", "--context", "lab", "--ca-file", str(tmp_path / "ca.pem"))
    assert wrong.code == 2
    assert "--ca-file: expected certificates in PEM form" in wrong.err


def test_a_token_does_not_travel_unencrypted_unless_told(cli: Cli, nowhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc")
    elsewhere = "192.0.2.1:7070"  # of nobody: RFC 5737
    asked = ("get", "jobs", "--timeout", "200ms", "--token-file", str(tmp_path / "token"), "--address", elsewhere)
    refused = cli(*asked)
    assert refused.code == 2
    assert f"--address: the token would travel unencrypted to {elsewhere}" in refused.err
    assert "--ca-file" in refused.err
    told = cli(*asked, "--insecure")
    assert told.code == 7
    assert f"--insecure: the token travels unencrypted to {elsewhere}" in told.err
    nowhere["TRAINCTL_INSECURE"] = "1"
    assert cli(*asked).code == 7


def test_what_cannot_be_written_is_refused(cli: Cli, nowhere: dict[str, str], tmp_path: Path) -> None:
    nowhere["TRAINCTL_CONFIG"] = "/proc/nowhere/config.yaml"
    assert cli("config", "set-context", "lab", "--address", "h:1").code == 5
    nowhere["TRAINCTL_CONFIG"] = ""
    assert "TRAINCTL_CONFIG is empty" in cli("config", "set-context", "lab", "--address", "h:1").err
    nowhere["TRAINCTL_CONFIG"] = str(tmp_path)
    assert cli("get", "jobs").code == 5


def test_what_a_context_says_is_right_wherever_it_is_read(
    cli: Cli, nowhere: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (("--address", "127.0.0.1"), ("--address", "h:99999"), ("--timeout", "soon"), ("--timeout", "9999d")):
        assert cli("config", "set-context", "lab", *wrong).code == 2
    assert not Path(nowhere["TRAINCTL_CONFIG"]).exists()
    monkeypatch.chdir(tmp_path)
    done = cli("config", "set-context", "lab", "--address", "h:1", "--token-file", "lab.token")
    assert "trainctl config use-context lab" in done.err
    config = yaml.safe_load(Path(nowhere["TRAINCTL_CONFIG"]).read_text())
    assert config["contexts"]["lab"]["tokenFile"] == str(tmp_path / "lab.token")


def test_the_token_of_a_context_goes_only_to_its_address(
    cli: Cli, controller: FakeController, nowhere: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "lab.token").write_text(TOKEN)
    lab = {"address": "127.0.0.1:9", "tokenFile": str(tmp_path / "lab.token")}
    Path(nowhere["TRAINCTL_CONFIG"]).write_text(yaml.safe_dump({"currentContext": "lab", "contexts": {"lab": lab}}))
    refused = cli("get", "jobs", "--address", controller.address)
    assert refused.code == 5
    assert "UNAUTHENTICATED" in refused.err
