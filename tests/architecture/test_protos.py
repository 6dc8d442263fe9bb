"""The wire: stubs are what the schema generates, the schema is lint-clean, compatible, and mirrors the records.

Without it an upgrade could break agents and commands of the version before.
"""

import dataclasses
import filecmp
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from trainctl.core.codec import camel
from trainctl.core.records import generation, spec, step, train_spec, worker
from trainctl.protos.v1 import records_pb2

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run_tool(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_committed_stubs_are_fresh(tmp_path: Path) -> None:
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "protos").rglob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    run_tool(sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", *outputs, *files)
    generated = sorted(p for p in tmp_path.rglob("*_pb2*"))
    assert generated
    for path in generated:
        committed = ROOT / "protos" / path.relative_to(tmp_path)
        assert filecmp.cmp(path, committed, shallow=False), f"{committed.name} is stale: run `make protos`"


def test_schema_is_lint_clean() -> None:
    run_tool("buf", "lint")


def test_schema_breaks_no_reader() -> None:
    run_tool("buf", "breaking", "--against", "protos/base.binpb")


MIRRORED = [
    *(cls for module in (step, generation, worker, spec, train_spec) for cls in vars(module).values()),
]
RECORDS = sorted(
    {cls for cls in MIRRORED if dataclasses.is_dataclass(cls) and isinstance(cls, type)}, key=lambda cls: cls.__name__
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda cls: cls.__name__)
def test_message_mirrors_record(record: type[Any]) -> None:
    message = records_pb2.DESCRIPTOR.message_types_by_name[record.__name__]
    assert [f.json_name for f in message.fields] == [camel(f.name) for f in dataclasses.fields(record)] or {
        f.json_name for f in message.fields
    } == {camel(f.name) for f in dataclasses.fields(record)}
    kinds = {f.json_name: f for f in message.fields}
    for field in dataclasses.fields(record):
        found = kinds[camel(field.name)]
        assert KIND_OF.get(str(field.type), found.type) == found.type, field.name


KIND_OF = {
    "float": FieldDescriptor.TYPE_DOUBLE,
    "float | None": FieldDescriptor.TYPE_DOUBLE,
    "bool": FieldDescriptor.TYPE_BOOL,
    "str": FieldDescriptor.TYPE_STRING,
}
