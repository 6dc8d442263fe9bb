"""Job files that were right once: keys dropped, doubled and misspelt, values of other types, text cut and spliced."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

VALID = (
    """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata:
  name: llama
  labels: {team: nlp, run: "7"}
spec:
  resources: {workersPerNode: 2, threadsPerWorker: 1}
  nodes: {min: 1, max: 2, target: 2}
  env: {OMP_NUM_THREADS: "1"}
  scheduling: {queue: research, priority: 5, activeDeadline: 2h}
  recovery: {profile: fast, replacementWait: 20s, maxRestarts: {user: 2, process: 5, window: 10m}}
  checkpoint: {uri: s3://bucket/ckpt, intervalSteps: 50, keep: {last: 2}, resumeFrom: latest}
  results: {tensorboard: true, wandb: {project: llm}, hooks: ["my.hooks:Notify"]}
  train:
    task: llama
    model: {layers: 4, hidden: 128, heads: 4, kvHeads: 2, context: 128, dropout: 0.1}
    data:
      sources:
        - {uri: /books, weight: 2, name: books}
        - {uri: /web, format: jsonl, field: body}
      packing: documents
    tokenizer: {kind: bpe, vocabSize: 1000}
    optimizer: {name: adamw, lr: 3e-4, betas: [0.9, 0.95], options: {amsgrad: true}}
    steps: 1_000
    batch: {sequences: 16, microBatches: 8}
    eval: {every: 50}
    precision: float32
""",
    """\
metadata: {name: script}
spec:
  command: [python, train.py, --epochs, "3"]
  launch:
    workdir: /work
    hang: {watch: heartbeat, after: 5m}
  nodes: {max: 4}
""",
    """\
metadata: {name: own}
spec:
  train:
    task: my.tasks:build
    options: {depth: 3, empty: [], nested: {flag: false, nothing: null, list: [1, two, 3.5]}}
    optimizer: {name: "my.optim:Lion", options: {warm: 1e-3}}
""",
    """\
metadata: {name: hf}
spec:
  train:
    task: hf_causal_lm
    model: {path: /models/tiny, weights: load, overrides: {num_hidden_layers: 2}}
    tokenizer: {kind: file, path: /models/tiny}
""",
)

_SCALARS = (
    None, True, False, 0, 1, -1, 2, 7, 2**31 - 1, 2**31, 10**30, 0.5, 1e300, float("nan"), float("inf"), "", "x", "no",
    "30s", "1e-3", "a b", "latest", "../x", "module:Class", "\0", "\x1b[2J", "\ud800", "\u202e", "\U0001f600",
    "x" * 300,
)  # fmt: skip
_VALUES = st.recursive(
    st.sampled_from(_SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "uri", "min", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip
_FRAGMENTS = (
    "\t", "\n", "\r", " ", "  ", "- ", ": ", ":", ",", "#", "'", '"', "[", "]", "{", "}", "|", ">", "&a ", "*a",
    "<<: *a\n", "!!str ", "!x ", "!!python/object:os.system ", "? ", "---\n", "...\n", "%YAML 1.1\n", "\ufeff", "\x00",
    "\x85", "\u2028", "\\", '"\\UFFFFFFFF"', '"\\ud83d"', "yes", "010", "1:30", ".nan", "~", "=", "@", "`", "*.txt",
    "&", "a: &a [*a]\n",
)  # fmt: skip
Path = tuple[str | int, ...]


def _values(data: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key), value
        yield from _values(value, (*path, key))


def _misspelt(name: str, at: int, how: int) -> str:
    at %= max(len(name), 1)
    spellings = (name[:at] + name[at + 1 :], name[:at] + "x" + name[at:], name.upper(), name.lower(), f"{name}_")
    return spellings[how % len(spellings)]


@st.composite
def changed_data(draw: st.DrawFn) -> bytes:
    """A valid job with one to four changes to its keys and values, written as YAML again."""
    data = yaml.safe_load(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        paths = [path for path, _ in _values(data)]
        if paths:
            _change(draw, data, draw(st.sampled_from(paths)))
    text = yaml.safe_dump(
        data,
        default_flow_style=draw(st.sampled_from([None, True, False])),
        allow_unicode=draw(st.booleans()),
        sort_keys=False,
    )
    return str(text).encode("utf-8", "surrogatepass")


def _change(draw: st.DrawFn, data: Any, path: Path) -> None:
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    last = path[-1]
    changes: dict[str, Callable[[], None]] = {
        "drop": lambda: holder.__delitem__(last),
        "replace": lambda: holder.__setitem__(last, draw(_VALUES)),
        "wrap in a list": lambda: holder.__setitem__(last, [holder[last]]),
        "make a text": lambda: holder.__setitem__(last, str(holder[last])),
    }
    if isinstance(holder, dict):
        changes["misspell"] = lambda: holder.__setitem__(
            _misspelt(str(last), draw(st.integers(0, 30)), draw(st.integers(0, 4))), holder.pop(last)
        )
        changes["put here"] = lambda: holder.__setitem__(draw(st.text(max_size=5)), copy.deepcopy(holder[last]))
    changes[draw(st.sampled_from(sorted(changes)))]()


@st.composite
def changed_text(draw: st.DrawFn) -> bytes:
    """A valid job file with pieces cut out, doubled, moved and put in."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(st.sampled_from([*_FRAGMENTS, text[start:end], text[start:end] * 2]) | st.text(max_size=4))
        text = text[:start] + piece + text[draw(st.sampled_from([start, end])) :]
        if draw(st.booleans()):
            lines = text.splitlines(keepends=True)
            one, other = (draw(st.integers(0, max(len(lines) - 1, 0))) for _ in range(2))
            lines[one:one], text = lines[other : other + 1], ""
            text = "".join(lines)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def changed_bytes(draw: st.DrawFn) -> bytes:
    """A valid job file with bytes replaced, or no job file at all."""
    content = bytearray(draw(st.sampled_from(VALID)).encode())
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return draw(st.just(bytes(content)) | st.binary(max_size=200) | st.text(max_size=200).map(str.encode))


def overrides() -> st.SearchStrategy[list[str]]:
    """Options ``--set``, some of which can be applied."""
    known = [(path, value) for text in VALID for path, value in _values(yaml.safe_load(text))]
    names = sorted({str(part) for path, _ in known for part in path})
    unchanged = st.sampled_from([f"{'.'.join(map(str, path))}={json.dumps(value)}" for path, value in known])
    paths = st.sampled_from([".".join(map(str, path)) for path, _ in known])
    paths |= st.lists(st.sampled_from([*names, "", "x"]), min_size=1, max_size=4).map(".".join)
    values = st.sampled_from([str(value) for value in _SCALARS] + list(_FRAGMENTS)) | st.text(max_size=6)
    changed = st.builds("{}={}".format, paths, values) | st.text(max_size=10)
    return st.lists(unchanged | unchanged | changed, min_size=1, max_size=3)
