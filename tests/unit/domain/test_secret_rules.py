"""Secrets in job files are found and never repeated.

Without it a password could be stored and shown to all who see the job.
"""

import re

import pytest

from trainctl.controller.domain.spec import parse_job
from trainctl.core.errors import SpecError

HEAD = "apiVersion: trainctl.dev/v1\nkind: TrainJob\nmetadata: {name: a}\nspec:\n"
VALUE = "hunter2-hunter2"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "aws_secret_access_key", "DB_PASSWORD", "MY_SECRET", "SECRET_OF_MINE", "X_PASSWD"],
)
def test_a_variable_that_looks_like_a_secret_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(f"{HEAD}  env: {{{name}: {VALUE}}}\n", source="job.yaml")
    text = str(caught.value)
    assert re.search(rf"job.yaml:5:\d+  spec.env.{name}: looks like a secret", text)
    assert "spec.secretEnv" in text
    assert VALUE not in text + caught.value.hint


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "KEYBOARD", "WANDB_MODE", "MAX_TOKENS"])
def test_other_variables_are_not(name: str) -> None:
    assert parse_job(f"{HEAD}  env: {{{name}: {VALUE}}}\n", source="job.yaml").spec.env[name] == VALUE


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("  checkpoint: {uri: 's3://ann:PASS@host/x'}", "spec.checkpoint.uri"),
        ("  results: {uri: 'https://ann:PASS@host/x'}", "spec.results.uri"),
        ("  env: {PROXY: 'http://:PASS@proxy:80'}", "spec.env.PROXY"),
        ("  command: [sh, -c, 'curl ftp://ann:PASS@host/x']", "spec.command[2]"),
        ("  train: {data: {uri: 'https://ann:PASS@host/x.txt'}}", "spec.train.data.uri"),
    ],
)
def test_a_password_in_a_url_is_refused_wherever_it_stands(line: str, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(HEAD + line.replace("PASS", VALUE) + "\n", source="job.yaml")
    assert f"{path}: expected a URL without a password" in str(caught.value)
    assert VALUE not in str(caught.value)
    parse_job(HEAD + line.replace(":PASS@", "@") + "\n", source="job.yaml")


def test_names_of_secrets_are_checked_all_at_once() -> None:
    text = HEAD + "  env: {B: x}\n  secretEnv: [A, A, B, 1x, 'a b', RANK]\n"
    with pytest.raises(SpecError) as caught:
        parse_job(text, source="job.yaml")
    for part in (
        "secretEnv[1]: A is named twice",
        "secretEnv[2]: B is in spec.env, too",
        'no digit first), found "1x"',
        "secretEnv[4]: expected the name",
        "secretEnv[5]: RANK is set for each rank",
    ):
        assert part in str(caught.value)
    assert parse_job(HEAD + "  secretEnv: [A, B_2]\n", source="job.yaml").spec.secret_env == ("A", "B_2")
