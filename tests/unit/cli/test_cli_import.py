"""Without it `trainctl import` could make checkpoints that no job can begin with, or run what a pickle says."""

import pickle
import sys
from pathlib import Path

from trainctl.checkpoint.kept.catalog import artifact, resolve
from trainctl.checkpoint.kept.origin import Imported, origin_of
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController
from unit.cli.hf_folder import hf_folder


def test_a_folder_becomes_a_checkpoint_that_a_job_names(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    controller.stop()
    source = hf_folder(tmp_path / "hf")
    loaded = set(sys.modules)
    done = cli("checkpoints", "import", str(source), str(tmp_path / "own"), "--step", "7", "--samples", "9")
    assert done.code == 0, done.err
    ref = resolve(done.out.strip())
    assert (ref.step, origin_of(ref)) == (7, Imported(cursor=9, optimizer=False))
    assert artifact(ref, "config.json", max_bytes=9) == b"{}"
    assert "imported from Hugging Face safetensors: parameters only, 1 tensor" in done.err
    assert f"spec.checkpoint.resumeFrom: {ref.uri}" in done.err
    assert not {"torch", "numpy", "safetensors"} & (set(sys.modules) - loaded)
    again = cli("checkpoints", "import", str(source), str(tmp_path / "own"))
    assert (again.code, "expected an empty folder" in again.err) == (4, True)


def test_options_say_what_the_names_mean(cli: Cli, tmp_path: Path) -> None:
    source = str(hf_folder(tmp_path / "hf"))
    done = cli("checkpoints", "import", source, str(tmp_path / "own"), "--strip-prefix", "model.")
    assert done.code == 0
    wrong = cli("checkpoints", "import", source, str(tmp_path / "no"), "--exclude", "x*")
    assert (wrong.code, "--exclude x*: expected it to match" in wrong.err) == (2, True)
    negative = cli("checkpoints", "import", source, str(tmp_path / "no"), "--samples", "-1")
    assert negative.code == 2
    assert not (tmp_path / "no").exists()


def test_a_pickle_that_runs_something_is_refused(cli: Cli, tmp_path: Path) -> None:
    source, mark = tmp_path / "dcp", tmp_path / "was-here"
    source.mkdir()
    attack = f"cos\nsystem\n(Vtouch {mark}\ntR.".encode()
    (source / ".metadata").write_bytes(attack)
    result = cli("checkpoints", "import", str(source), str(tmp_path / "own"))
    assert result.code != 0
    assert f"{source}/.metadata is refused: it names os.system, which has no place in it" in result.err
    assert "nothing is run" in result.err
    assert not mark.exists()
    assert not (tmp_path / "own").exists()
    pickle.loads(attack)
    assert mark.exists()
