import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainctl.cli.main import main
from unit.cli.fake_controller import TOKEN, FakeController


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def controller() -> Iterator[FakeController]:
    fake = FakeController()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def environment(controller: FakeController, tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    return {
        "TRAINCTL_ADDRESS": controller.address,
        "TRAINCTL_TOKEN_FILE": str(token),
        "TRAINCTL_HOME": str(tmp_path / "home"),
        "TRAINCTL_CONFIG": str(tmp_path / "config.yaml"),
    }


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    def run(*arguments: str, out: io.StringIO | None = None, err: io.StringIO | None = None) -> Result:
        stdout, stderr = out or io.StringIO(), err or io.StringIO()
        code = main(arguments, out=stdout, err=stderr, env=environment)
        return Result(code, stdout.getvalue(), stderr.getvalue())

    return run
