"""Every wrong job file is refused with exactly the expected words, by the command line and by the controller.

Without it people would be told of their mistakes in other words, or not at all.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from corpus.wrong_files import FOLDER, Case, cases, error_of, shown
from trainctl.cli.job_file.jobfile_positions import with_positions
from trainctl.controller.domain.spec import job_from_wire
from trainctl.controller.domain.spec.nodes import Node, to_plain
from trainctl.controller.domain.spec.overrides import set_values
from trainctl.controller.domain.spec.rules import RULES
from trainctl.controller.domain.spec.schema import Shaper
from trainctl.controller.domain.spec.yaml_text import compose
from trainctl.core.codec import from_wire
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob
from trainctl.protos.convert import message_to_dict, record_to_message
from trainctl.protos.v1.records_pb2 import TrainJob as TrainJobMessage

CASES = {case.name: case for case in cases()}
ONLY_IN_TEXT = {
    "ranges/betas-empty",  # in protobuf's JSON form an empty list is one that was not set
    "types/off-for-boolean",  # once it is false, nobody knows that it was written as off
    "types/off-in-free-options",
    "types/yes-for-boolean",
}
"""Wrong as a text, but right as data."""
MORE_THAN_SHOWN = {name for name, case in CASES.items() if " more problems" in case.expected.read_text()}


def root_of(case: Case) -> Node | None:
    """The file as data; None where it is none."""
    try:
        root, problems = compose(case.content.decode(), source="job")
    except (SpecError, UnicodeDecodeError):
        return None
    root, unusable = set_values(root, case.overrides)
    return None if problems or unusable or not isinstance(root.value, Mapping) else root


AS_DATA = {
    name: root for name, case in CASES.items() if name not in ONLY_IN_TEXT | MORE_THAN_SHOWN and (root := root_of(case))
}


def well_formed(root: Node) -> TrainJob | None:
    """The job as a client would send that checks types and nothing else."""
    shaper = Shaper()
    shaped = shaper.shape(TrainJob, root)
    return None if shaper.problems else from_wire(TrainJob, shaped)


WELL_FORMED = {name: job for name, root in AS_DATA.items() if (job := well_formed(root))}


@pytest.mark.parametrize("name", CASES)
def test_what_a_user_is_told(name: str, tmp_path: Path) -> None:
    error = error_of(CASES[name], tmp_path)
    assert error is not None, "a valid job file"
    assert shown(error) == CASES[name].expected.read_text(), "as intended? make corpus"


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 300
    assert set(FOLDER.rglob("*.expected")) == {case.expected for case in CASES.values()}
    assert len(AS_DATA) > 200
    assert len(WELL_FORMED) > 100
    for rule in RULES:
        assert any(any(rule(job)) for job in WELL_FORMED.values()), f"{rule.__name__} finds nothing in the corpus"


def test_expectations_are_fit_to_be_shown() -> None:
    for case in CASES.values():
        text = case.expected.read_text()
        assert text.endswith("\nexit code 2\n"), case.name
        assert "\nhint: " in text, case.name
        assert all(line.isprintable() and len(line) < 400 for line in text.splitlines()), case.name
        assert len(text) < 10_000, case.name


@pytest.mark.parametrize("name", AS_DATA)
def test_the_controller_finds_the_same_fields(name: str, tmp_path: Path) -> None:
    data = to_plain(AS_DATA[name])
    assert isinstance(data, dict)
    with pytest.raises(SpecError) as caught:
        job_from_wire(data)
    expected = error_of(CASES[name], tmp_path)
    assert expected is not None
    assert {p.path for p in caught.value.problems} == {p.path for p in expected.problems}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_client_that_checks_nothing_is_told_the_same(name: str, tmp_path: Path) -> None:
    case, job = CASES[name], WELL_FORMED[name]
    wire = record_to_message(job, TrainJobMessage).SerializeToString()
    with pytest.raises(SpecError) as caught:
        job_from_wire(message_to_dict(TrainJobMessage.FromString(wire)))
    found = with_positions(caught.value, text=case.content.decode(), source=case.file_name, overrides=case.overrides)
    expected = error_of(case, tmp_path)
    assert expected is not None
    assert set(found.problems) == set(expected.problems)


def test_the_docs_show_what_is_said() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "job-file-errors.md").read_text()
    case = CASES["several/job"]
    assert case.content.decode() in page
    assert case.expected.read_text().removesuffix("exit code 2\n") in page
