"""Whose jobs a command is about, and what it does when the controller asks it to wait.

Without it a command could act on a job of the same name in another tenant.
"""

import time
from pathlib import Path

import pytest

from trainctl.cli.main import main
from trainctl.core.errors import UnavailableError
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


def limited(retry_after_s: float) -> UnavailableError:
    error = UnavailableError("too many calls", retry_after_s=retry_after_s)
    error.code = "RATE_LIMITED"
    return error


@pytest.fixture(autouse=True)
def job(controller: FakeController) -> None:
    controller.add_job("a")


def asked(controller: FakeController) -> list[str]:
    return [request.tenant for method, request in controller.calls if method == "GetJob"]


def test_the_tenant_is_that_of_the_flag_else_the_environment_else_the_context_else_nobodys(
    cli: Cli, controller: FakeController, environment: dict[str, str]
) -> None:
    assert cli("describe", "a").code == 0
    assert asked(controller) == [""], "the controller knows what a token without a tenant means"
    environment["TRAINCTL_TENANT"] = "of-env"
    cli("describe", "a")
    cli("describe", "a", "--tenant", "of-flag")
    del environment["TRAINCTL_TENANT"]
    cli("config", "set-context", "lab", "--address", controller.address, "--tenant", "of-context")
    cli("describe", "a", "--context", "lab", "--token-file", environment["TRAINCTL_TOKEN_FILE"])
    assert asked(controller)[1:] == ["of-env", "of-flag", "of-context"]
    explained = cli("config", "explain", "--context", "lab").out
    assert "of-context" in explained


@pytest.mark.parametrize("wrong", ["A", "a/b", "*", "x" * 64, "-a"])
def test_what_is_no_name_of_a_tenant_is_refused_before_anybody_is_asked(
    cli: Cli, controller: FakeController, environment: dict[str, str], wrong: str
) -> None:
    environment["TRAINCTL_TENANT"] = wrong
    done = cli("get", "jobs")
    assert done.code == 2
    assert "TRAINCTL_TENANT: expected at most 63 small letters" in done.err
    del environment["TRAINCTL_TENANT"]
    assert cli("config", "set-context", "lab", "--tenant", wrong).code == 2
    assert not controller.calls


def test_a_job_file_without_a_tenant_goes_where_the_command_says(
    cli: Cli, controller: FakeController, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("apiVersion: trainctl.dev/v1\nkind: TrainJob\nmetadata: {name: b}\nspec: {command: ['true']}\n")
    cli("submit", "-f", str(path))
    cli("submit", "-f", str(path), "--tenant", "research")
    cli("submit", "-f", str(path), "--set", "metadata.tenant=other")
    sent = [request.job.metadata for method, request in controller.calls if method == "CreateJob"]
    assert [(one.HasField("tenant"), one.tenant) for one in sent] == [
        (False, ""), (True, "research"), (True, "other")
    ]  # fmt: skip
    done = cli("submit", "-f", str(path), "--set", "metadata.tenant=other", "--tenant", "research")
    assert done.code == 2
    assert 'metadata.tenant: expected "research" (--tenant), found "other" (from --set)' in done.err


def test_who_is_asked_to_wait_waits_and_tries_again(cli: Cli, controller: FakeController) -> None:
    controller.failures = [limited(0.05), limited(0.05)]
    began_s = time.monotonic()
    assert cli("describe", "a").code == 0
    assert time.monotonic() - began_s >= 0.1
    assert asked(controller) == [""] * 3


def test_nobody_waits_longer_than_the_deadline(cli: Cli, controller: FakeController) -> None:
    controller.failures = [limited(100.0)]
    began_s = time.monotonic()
    done = cli("describe", "a", "--timeout", "2s")
    assert time.monotonic() - began_s < 30.0
    assert (done.code, len(controller.calls)) == (7, 1)
    assert "too many calls (RATE_LIMITED)" in done.err


def test_a_token_file_is_never_overwritten(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("mine")
    done = cli("tokens", "create", "ann", "--role", "viewer", "--out", str(path))
    assert (done.code, path.read_text()) == (4, "mine")
    for ttl in ("0s", "soon", "-1d"):
        done = cli("tokens", "create", "ann", "--role", "viewer", f"--ttl={ttl}")
        assert done.code == 2
        assert "--ttl" in done.err
    assert not controller.calls
    assert main(["tokens", "create", "ann", "--role", "king"], env={}) == 2
