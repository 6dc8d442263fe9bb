"""Without it an exported model could compute other logits than the trained one, or half a folder pass as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainctl.checkpoint.export import export_checkpoint
from trainctl.checkpoint.export.__main__ import main
from trainctl.checkpoint.export.casting import cast_bytes
from trainctl.checkpoint.layout.key import StateKey
from trainctl.core.errors import CheckpointError, ConflictError, UsageError
from unit.checkpoint.ranks import flats, full_values, key, rows, same_bits, save

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def llama_weights(config: dict[str, object]) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig.from_dict(config))
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def logits(folder: Path) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaForCausalLM

        loaded: Any = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        output: torch.Tensor = model(torch.arange(12).reshape(1, 12)).logits
    return output


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_progress_is_in_bytes_of_what_is_written(tmp_path: Path, dtype: str | None) -> None:
    ref = save(tmp_path / "in", full_values({"a": (300, 20), "b": (7,)}))
    seen: list[tuple[int, int]] = []
    report = export_checkpoint(
        ref.uri,
        str(tmp_path / "out"),
        dtype=dtype,
        max_shard_bytes=1 << 10,
        moving=lambda done, total: seen.append((done, total)),
    )
    assert len(report.files) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (report.data_bytes, report.data_bytes)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard_bytes", [5 << 30, 4000])
def test_transformers_loads_the_folder_and_gives_the_same_logits(
    tmp_path: Path, tied: bool, max_shard_bytes: int
) -> None:
    config = {**CONFIG, "tie_word_embeddings": tied}
    weights = llama_weights(config)
    stored = {name: t for name, t in weights.items() if not (tied and name == "lm_head.weight")}
    values = {key(name): t for name, t in stored.items()}
    moments = {key(name, kind="exp_avg"): torch.zeros_like(t) for name, t in stored.items()}
    artifacts = {"config.json": json.dumps(config).encode(), "tokenizer.json": b"{}"}
    aliases = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
    everything: dict[StateKey, torch.Tensor] = values | moments
    save(tmp_path / "ckpt", everything, layout=flats(everything, 3), artifacts=artifacts, aliases=aliases)
    report = export_checkpoint(str(tmp_path / "ckpt"), str(tmp_path / "hf"), max_shard_bytes=max_shard_bytes)
    assert report.tensors == len(stored)
    assert ("model.safetensors" in report.files) == (max_shard_bytes > 4000)

    direct = tmp_path / "direct"
    direct.mkdir()
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in stored.items()}, direct / "model.safetensors", metadata={"format": "pt"})
    (direct / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(tmp_path / "hf"), logits(direct))
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == b"{}"


def test_a_tie_that_the_config_does_not_know_is_written_out(tmp_path: Path) -> None:
    values = {key("embed"): torch.randn(3, 2)}
    save(
        tmp_path / "c", values, aliases={"head": "embed"}, artifacts={"config.json": b'{"tie_word_embeddings": false}'}
    )
    export_checkpoint(str(tmp_path / "c"), str(tmp_path / "hf"))
    exported = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(exported["head"], values[key("embed")])
    assert torch.equal(exported["embed"], values[key("embed")])


@pytest.mark.parametrize(
    ("config", "found"), [(b"[]", "list"), (b"[" * 100_000, ": maximum recursion"), (b"{", ": Exp")]
)
def test_a_config_that_is_no_object_is_said_so_before_anything_is_written(
    tmp_path: Path, config: bytes, found: str
) -> None:
    save(tmp_path / "c", {key("w"): torch.randn(4, 5)}, artifacts={"config.json": config})
    with pytest.raises(CheckpointError, match=f"config.json: expected a JSON object, found ?{found}") as refused:
        export_checkpoint(str(tmp_path / "c"), str(tmp_path / "hf"), dtype="bfloat16")
    assert "or none" in refused.value.hint
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(("source", "target"), [("F32", "BF16"), ("F16", "BF16"), ("BF16", "F32"), ("F32", "F16")])
def test_casts_equal_torch_bit_for_bit(source: str, target: str) -> None:
    from trainctl.checkpoint.live.tensors import byte_view, dtype_of

    generator = torch.Generator().manual_seed(3)
    bits = torch.randint(0, 256, (80_000,), generator=generator, dtype=torch.uint8)
    ties = torch.tensor([1.00390625, 1.01171875, -1.00390625, 3.4e38, 1e-40, 0.0, -0.0, float("inf")])
    numbers = torch.cat([bits.view(dtype_of(source)), ties.to(dtype_of(source))])
    expected = numbers.to(dtype_of(target))
    found = torch.frombuffer(bytearray(cast_bytes(byte_view(numbers), source, target)), dtype=dtype_of(target))
    nan = expected.isnan()
    assert torch.equal(found.isnan(), nan)
    assert same_bits(found[~nan], expected[~nan])


def test_dtype_casts_the_tensors_and_is_told_in_the_config(tmp_path: Path) -> None:
    values = {key("w"): torch.randn(4, 5), key("n", "I64"): torch.arange(3)}
    save(tmp_path / "c", values, layout=rows(values, 2), artifacts={"config.json": b'{"torch_dtype": "float32"}'})
    export_checkpoint(str(tmp_path / "c"), str(tmp_path / "hf"), dtype="bfloat16")
    exported = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(exported["w"], values[key("w")].to(torch.bfloat16))
    assert exported["n"].dtype == torch.int64
    assert json.loads((tmp_path / "hf" / "config.json").read_text()) == {"dtype": "bfloat16"}
    save(tmp_path / "wide", full_values(dtype="F64"))
    with pytest.raises(UsageError, match="rounded twice"):
        export_checkpoint(str(tmp_path / "wide"), str(tmp_path / "hf2"), dtype="bfloat16")
    assert not (tmp_path / "hf2").exists()


def test_a_folder_that_is_not_empty_is_only_replaced_with_force(tmp_path: Path) -> None:
    save(tmp_path / "c", {key("w"): torch.ones(4)})
    target = tmp_path / "hf"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    (target / "model-00001-of-00002.safetensors").write_text("old")
    with pytest.raises(ConflictError, match="expected an empty folder") as caught:
        export_checkpoint(str(tmp_path / "c"), str(target))
    assert "--force" in caught.value.hint
    export_checkpoint(str(tmp_path / "c"), str(target), overwrite=True)
    assert sorted(p.name for p in target.iterdir()) == ["model.safetensors", "notes.txt"]


def test_a_corrupt_checkpoint_leaves_no_half_written_folder(tmp_path: Path) -> None:
    save(tmp_path / "c", {key("w"): torch.ones(4)})
    for path in (tmp_path / "c").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is corrupt"):
        export_checkpoint(str(tmp_path / "c"), str(tmp_path / "hf"))
    assert not (tmp_path / "hf").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(CheckpointError, match="is corrupt"):
        export_checkpoint(str(tmp_path / "c"), str(tmp_path / "mine"))
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_command_works_without_torch(tmp_path: Path) -> None:
    save(tmp_path / "c", {key("w"): torch.ones(4)})
    roots = Path(__file__).parents[4]
    path = os.pathsep.join(str(roots / name) for name in ("protos", "checkpoint"))
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from trainctl.checkpoint.export.__main__ import main\n"
        f"sys.exit(main([{str(tmp_path / 'c')!r}, {str(tmp_path / 'hf')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exported 1 tensors (16 B)" in done.stdout
    assert torch.equal(load_file(tmp_path / "hf" / "model.safetensors")["w"], torch.ones(4))


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), str(tmp_path / "hf")]) == 6
    said = capsys.readouterr().err
    assert f"holds no complete checkpoint: there is no such folder in {tmp_path} (CHECKPOINT_UNUSABLE)\n" in said
    assert "resum" not in said
