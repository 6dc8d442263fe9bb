"""Whatever is in a job file: a checked job that survives its journeys, or one clear error, and soon.

Without it some job file could crash the controller, or mean something else there than on a worker.

The same examples each time. With ``TRAINCTL_FUZZ_EXAMPLES=5000`` so many new ones are drawn for each test, and the seed
is printed (``make chaos``); ``TRAINCTL_FUZZ_SEED`` draws them again.
"""

import io
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.cli.job_file.jobfile import STDIN, read_job_file
from trainctl.controller.domain.spec import effective, job_from_wire, parse_job, validate
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob
from trainctl.protos.convert import message_to_dict, message_to_record, record_to_message
from trainctl.protos.v1.records_pb2 import TrainJob as TrainJobMessage
from unit.domain.fuzz_effort import EXAMPLES, SEED, Effort
from unit.domain.job_file_mutations import VALID, changed_bytes, changed_data, changed_text, overrides

MOST_CPU_S = 3.0
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML 1.1 counts lines
bounded = Effort.of(os.environ)


@pytest.fixture(scope="module", autouse=True)
def effort_is_said(request: pytest.FixtureRequest) -> None:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if bounded.seed is not None:
        with capture.global_and_fixture_disabled():
            print(f"\nfuzz: {bounded}", flush=True)


@pytest.mark.parametrize("text", VALID)
def test_what_is_mutated_was_valid(text: str) -> None:
    assert survives_its_journeys(parse_job(text, source="job.yaml"))


@bounded
@given(changed_data())
def test_changed_keys_and_values(content: bytes) -> None:
    job_or_clear_error(content, [])


@bounded
@given(changed_text())
def test_changed_text(content: bytes) -> None:
    job_or_clear_error(content, [])


@bounded
@given(changed_bytes())
def test_changed_bytes(content: bytes) -> None:
    job_or_clear_error(content, [])


@bounded
@given(st.sampled_from(VALID), overrides())
def test_overrides(text: str, options: list[str]) -> None:
    job_or_clear_error(text.encode(), options)


def test_the_usual_examples_are_always_the_same_and_others_can_be_drawn_again() -> None:
    assert Effort.of({}).seed is None
    first, second = (Effort.of({EXAMPLES: "40"}) for _ in range(2))
    assert (first.examples, second.examples) == (40, 40)
    assert first.seed != second.seed
    assert drawn(first) == drawn(Effort.of({EXAMPLES: "40", SEED: str(first.seed)}))
    assert drawn(first) != drawn(second)
    assert drawn(Effort.of({})) == drawn(Effort.of({}))
    assert str(first.seed) in str(first)
    for name in (EXAMPLES, SEED):
        for wrong in ("0", "-1", "many"):
            with pytest.raises(ValueError, match=f"{name}: expected a positive number, found '{wrong}'"):
                Effort.of({name: wrong})


def drawn(effort: Effort) -> list[bytes]:
    found: list[bytes] = []

    @effort
    @given(changed_text())
    def note(content: bytes) -> None:
        found.append(content)

    note()
    return found


def job_or_clear_error(content: bytes, options: list[str]) -> None:
    before_s = time.process_time()
    try:
        text, source = read_job_file(STDIN, stdin=io.BytesIO(content))
        assert survives_its_journeys(parse_job(text, source=source, overrides=options))
    except SpecError as error:
        is_clear(error, content)
    assert time.process_time() - before_s < MOST_CPU_S


def is_clear(error: SpecError, content: bytes) -> None:
    assert error.problems
    assert error.hint
    lines = _LINE_BREAK.split(content.decode("utf-8", "replace"))
    for problem in error.problems:
        assert problem.message
        assert 0 <= problem.line <= len(lines), problem
        assert bool(problem.line) == bool(problem.column), problem
        if problem.line:
            assert problem.column <= len(lines[problem.line - 1]) + 1, problem
    places = [(p.line, p.column) for p in error.problems if p.path or p.line]
    assert places == sorted(places)
    shown = str(error).splitlines()
    assert len(shown) == len(error.problems) + 1
    assert all(line.isprintable() for line in shown)


def survives_its_journeys(job: TrainJob) -> bool:
    message = TrainJobMessage.FromString(record_to_message(job, TrainJobMessage).SerializeToString())
    assert from_wire(TrainJob, to_wire(job)) == job
    assert message_to_record(message, TrainJob) == job
    assert job_from_wire(message_to_dict(message)) == job
    whole = effective(job)
    assert effective(whole) == whole
    assert validate(whole) == ()
    return True
