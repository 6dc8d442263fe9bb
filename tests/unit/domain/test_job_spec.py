"""Without it job files could be misread, silently or by YAML's own ideas, or refused without place and reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.spec import apply_overrides, effective, job_from_wire, parse_job, validate
from trainctl.core.codec import to_wire
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import JobMetadata, SnapshotsSpec, TrainJob

GOOD = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {name: tiny-llama, labels: {team: nlp}}
spec:
  resources: {workersPerNode: 2}
  nodes: {min: 1, max: 2}
  env: {OMP_NUM_THREADS: "1"}
  train:
    steps: 1_000
    optimizer: {lr: 3e-4, betas: [0.9, 0.95]}
    batch: {sequences: 16, microBatches: 8}
"""


def problems(text: str, **more: list[str]) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_job(text, source="job.yaml", overrides=more.get("overrides", ()))
    return caught.value.problems


def spec(body: str) -> str:
    return f"metadata: {{name: a}}\nspec:\n{body}"


def test_a_good_file_is_read_and_its_defaults_resolved() -> None:
    job = parse_job(GOOD, source="job.yaml")
    assert job.metadata.labels == {"team": "nlp"}
    assert job.spec.train.steps == 1000
    assert job.spec.train.optimizer.lr == 3e-4
    whole = effective(job)
    assert whole.spec.nodes.target == 2
    assert whole.spec.train.model.kv_heads == 4
    assert whole.spec.train.model.ffn % 64 == 0
    assert whole.spec.recovery.replacement_wait == "30s"
    assert effective(whole) == whole
    assert validate(whole) == ()


def test_the_wire_form_reads_back_equal() -> None:
    job = parse_job(GOOD, source="job.yaml")
    assert job_from_wire(to_wire(job)) == job


@pytest.mark.parametrize("text", ["auto", "90s", "1.5h", "500ms"])
def test_the_time_between_checkpoints_is_chosen_or_given(text: str) -> None:
    job = parse_job(spec(f"  checkpoint: {{interval: {text}}}"), source="job.yaml")
    assert job.spec.checkpoint.interval == text
    assert effective(job).spec.checkpoint.interval == text
    assert job_from_wire(to_wire(job)) == job


@pytest.mark.parametrize("text", ["auto", "10s"])
def test_the_time_between_snapshots_is_chosen_or_given(text: str) -> None:
    job = parse_job(spec(f"  checkpoint: {{snapshots: {{interval: {text}}}}}"), source="job.yaml")
    assert effective(job).spec.checkpoint.snapshots == SnapshotsSpec(interval=text)
    assert job.spec.checkpoint.snapshots.wanted
    assert not parse_job(spec("  checkpoint: {}"), source="job.yaml").spec.checkpoint.snapshots.wanted
    assert job_from_wire(to_wire(job)) == job


def test_lists_that_protobuf_leaves_empty_take_the_default() -> None:
    data = {"metadata": {"name": "a", "labels": {}}, "spec": {"train": {"optimizer": {"betas": []}}}}
    assert job_from_wire(data).spec.train.optimizer.betas == (0.9, 0.95)


def test_all_problems_at_once_with_places_and_spelling() -> None:
    text = spec(
        "  nodes: {min: 20, max: 16}\n"
        "  scheduling:\n    prioritty: 5\n    queue: no\n"
        "  train:\n    batch: {sequences: 64, microBatches: 4}\n    steps: '5'\n    steps: 6\n"
        "  recovery: {profile: quick, replacementWait: 5 minutes}\n"
    )
    found = {p.path: p for p in problems(text)}
    assert (found["spec.nodes.min"].line, found["spec.nodes.min"].column) == (3, 16)
    assert found["spec.nodes.min"].message == "20 is greater than spec.nodes.max (16)"
    assert 'did you mean "priority"' in found["spec.scheduling.prioritty"].message
    assert 'put it in quotes: "no"' in found["spec.scheduling.queue"].message
    assert "spec.nodes.max may be 1 to 4" in found["spec.train.batch.microBatches"].message
    assert "fast or balanced or patient" in found["spec.recovery.profile"].message
    assert "spec.recovery.replacementWait" in found
    assert any("duplicate key" in p.message for p in problems(text))
    lines = [p.line for p in problems(text)]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("body", "path", "part"),
    [
        ("  train: {model: {hidden: 250, heads: 4}}", "spec.train.model.hidden", "not a multiple of heads"),
        ("  train: {model: {hidden: 12, heads: 4}}", "spec.train.model.hidden", "even number"),
        ("  train: {model: {heads: 4, kvHeads: 3}}", "spec.train.model.kvHeads", "not a multiple"),
        ("  train: {model: {layers: 0}}", "spec.train.model.layers", "at least 1"),
        ("  train: {model: {layers: 2.5}}", "spec.train.model.layers", "expected a whole number"),
        ("  train: {model: {layers: true}}", "spec.train.model.layers", "found the boolean true"),
        ("  train: {model: {tieEmbeddings: yes}}", "spec.train.model.tieEmbeddings", "write true or false"),
        ("  train: {batch: {sequences: 10}}", "spec.train.batch.sequences", "microBatches that fit: 1, 2, 5, 10"),
        ("  train: {optimizer: {betas: [0.9, 1.0]}}", "spec.train.optimizer.betas", "less than 1"),
        ("  train: {optimizer: {lr: .nan}}", "spec.train.optimizer.lr", "greater than 0"),
        ("  train: {optimizer: {lr: .inf}}", "spec.train.optimizer.lr", "finite"),
        ("  train: {tokenizer: {kind: bpe, vocabSize: 100}}", "spec.train.tokenizer.vocabSize", "at least 257"),
        ("  train: {tokenizer: {kind: words}}", "spec.train.tokenizer.kind", "expected bytes or bpe"),
        ("  train: {precision: bf16}", "spec.train.precision", "auto or float32 or float64"),
        ("  train: {steps: 99999999999}", "spec.train.steps", "must lie within"),
        ("  train: {task: bert}", "spec.train.task", "expected llama"),
        ("  train: [1]", "spec.train", "expected a mapping"),
        ("  nodes: {max: 2, target: 3}", "spec.nodes.target", "expected 1 to 2"),
        ("  scheduling: {activeDeadline: 30}", "spec.scheduling.activeDeadline", "a duration has a unit: 30s"),
        ("  scheduling: {activeDeadline: 0s}", "spec.scheduling.activeDeadline", "more than no time"),
        ("  recovery: {maxRestarts: {window: 0s}}", "spec.recovery.maxRestarts.window", "more than no time"),
        ("  resources: {threadsPerWorker: 10000}", "spec.resources.threadsPerWorker", "to 1024, found 10000"),
        ("  checkpoint: {layout: zarr}", "spec.checkpoint.layout", 'expected chunked or hf, found "zarr"'),
        (
            "  checkpoint: {snapshots: {place: tape}}",
            "spec.checkpoint.snapshots.place",
            "expected memory or disk, found",
        ),
        ("  checkpoint: {layout: hf, uri: 's3://b/c'}", "spec.checkpoint.layout", "takes a folder on disk"),
        ("  checkpoint: {resumeFrom: newest}", "spec.checkpoint.resumeFrom", "none, latest or the URI"),
        ("  checkpoint: {resumeFrom: latest}", "spec.checkpoint.resumeFrom", "spec.checkpoint.uri, which is not set"),
        ("  env: {A: 1}", "spec.env.A", "put it in quotes"),
        ("  env: {'A-B': x}", "spec.env.A-B", "name of an environment variable"),
        ("  resources: {workersPerNode: 8}", "spec.train.batch.microBatches", "no size is legal"),
    ],
)
def test_each_rule_names_its_field(body: str, path: str, part: str) -> None:
    found = {p.path: p.message for p in problems(spec(body))}
    assert part in found[path]


@pytest.mark.parametrize("name", ["", "Big", "a_b", "-a", "a-", "x" * 64, "a.b"])
def test_names_are_dns_labels(name: str) -> None:
    job = TrainJob(metadata=JobMetadata(name=name))
    assert [p.path for p in validate(job)] == ["metadata.name"]
    assert validate(replace(job, metadata=JobMetadata(name="a-1"))) == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("\0", "U+0000"),
        ("- 1", "expected a mapping"),
        ("spec: {}", "is required"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: [1,2\n\tb: 3", "a tab"),
        ("a: *nope", "undefined alias"),
        ("x: " + "[" * 2000 + "]" * 2000, "nested deeper"),
        ("x" * 300_000, "256 KiB"),
        ("a: !!python/object:os.system x", "tag"),
        ("a: &a 1\nb: [" + ", ".join(["*a"] * 101) + "]", "more than 100 aliases"),
        ("<<: {a: 1}", "merge keys"),
        ("{[1]: 2}", "a key must be a text"),
        ("a: &a [*a]", "expand to more than"),
    ],
)
def test_hostile_texts_are_one_clear_error(text: str, part: str) -> None:
    found = problems(text)
    assert any(part in p.message for p in found), found


def test_many_lists_beside_each_other_are_not_deep() -> None:
    beside = "[" + ", ".join(["[1]"] * 50) + "]"
    assert not any("nested deeper" in p.message for p in problems(f"x: {beside}"))


@pytest.mark.parametrize(("levels", "deep"), [(19, False), (20, True)])
def test_twenty_levels_are_the_most(levels: int, deep: bool) -> None:
    found = problems("x: " + "[" * levels + "]" * levels)
    assert any("nested deeper than 20 levels" in p.message for p in found) is deep


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a: &a {x: 1, y: 2, z: 3}"]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{new}: &{new} {{p: *{old}, q: *{old}, r: *{old}}}")
    assert any("expand to more than" in p.message for p in problems("\n".join(lines)))


def test_overrides_are_checked_like_the_file() -> None:
    job = parse_job(GOOD, source="job.yaml", overrides=["spec.train.steps=5", "spec.train.optimizer.betas=[0.8, 0.9]"])
    assert (job.spec.train.steps, job.spec.train.optimizer.betas) == (5, (0.8, 0.9))
    found = {p.path for p in problems(GOOD, overrides=["spec.nods.max=1", "spec.train.steps=many"])}
    assert found == {"spec.nods", "spec.train.steps"}
    assert "PATH=VALUE" in problems(GOOD, overrides=["oops"])[0].message
    assert apply_overrides("metadata: {name: a}", ["metadata.name=b"]) == {"metadata": {"name": "b"}}
    assert apply_overrides({"metadata": {}}, ["metadata.name=b"]) == {"metadata": {"name": "b"}}


def test_texts_that_yaml_1_1_misreads_stay_texts() -> None:
    job = parse_job("metadata: {name: a, labels: {x: 010, y: 1:30, z: 2024-01-01}}", source="j")
    assert job.metadata.labels == {"x": "010", "y": "1:30", "z": "2024-01-01"}
