"""``spec.train`` as data: what the built-in loop trains, with every default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The model; shape fields are those of the built-in decoder (task ``llama``).

    Attributes:
        layers: decoder layers.
        hidden: width.
        heads: attention heads.
        kv_heads: key and value heads; 0: as ``heads``.
        ffn: inner width of the feed-forward part; 0: 8/3 of ``hidden``, rounded up to 64.
        context: tokens of one training sample, for every task.
        rope_theta: base of the rotary embedding.
        dropout: probability.
        tie_embeddings: input and output embedding are one.
        norm_eps: what the norms add to the mean square.
        path: a Hugging Face folder; required by ``hf_causal_lm`` (its ``config.json``), and for ``llama`` the weights
            to begin with.
        weights: ``auto`` (those in ``path`` if there are any), ``load`` (they must be there) or ``random``.
        overrides: values that replace those of ``config.json``.
    """

    layers: int = 4
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 0
    ffn: int = 0
    context: int = 256
    rope_theta: float = 10000.0
    dropout: float = 0.0
    tie_embeddings: bool = True
    norm_eps: float = 1e-6
    path: str = ""
    weights: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSourceSpec:
    """One part of a mixture; its fields mean what they mean in ``TrainDataSpec``.

    Attributes:
        uri: folder, file, glob or URL that fsspec opens.
        format: ``auto``, ``text``, ``jsonl``, ``parquet`` or ``tokens``.
        field: of a record.
        include: glob for file names inside a folder.
        weight: share of the samples, relative to the other sources'.
        name: for messages and figures; empty: the uri.
    """

    uri: str
    format: str = "auto"
    field: str = "text"
    include: str = "*"
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptSpec:
    """What happens to a record that cannot be read.

    Attributes:
        policy: ``fail`` (the first one fails the job) or ``skip`` (it is counted and reported with file and offset).
        max_records: with ``skip``, more than this many fail the job.
    """

    policy: str = "fail"
    max_records: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainDataSpec:
    """What to train on.

    Attributes:
        uri: folder, file, glob or URL that fsspec opens; ``python-stdlib`` is the running Python's standard library.
        format: ``text`` (a file is a document), ``jsonl``, ``parquet``, ``tokens`` (ids made earlier), or ``auto`` by
            the files' names.
        field: of a JSONL record or column of a parquet file that holds the text.
        include: glob for file names inside a folder.
        hold_out_every: every n-th file (sorted by path), or record where there are fewer files, is kept for evaluation.
        sources: a weighted mixture; ``uri``, ``format``, ``field`` and ``include`` must then be left out.
        packing: ``stream`` (documents joined and cut into windows), ``documents`` (whole documents packed side by side,
            each attending to itself only) or ``pad`` (one document a sample, cut or padded).
        mode: ``cached`` (tokenised once into files on the node) or ``streaming`` (read and tokenised when needed, with
            bounded memory and nothing on disk).
        prefetch: batches made ahead of the loop; 0 makes each when it is needed.
        corrupt: what happens to a record that cannot be read.
    """

    uri: str = "python-stdlib"
    format: str = "auto"
    field: str = "text"
    include: str = "*"
    hold_out_every: int = 20
    sources: tuple[DataSourceSpec, ...] = ()
    packing: str = "stream"
    mode: str = "cached"
    prefetch: int = 2
    corrupt: CorruptSpec = CorruptSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """``bytes`` (256 values), ``bpe`` trained on the corpus with ``vocab_size`` entries, or a ``file``.

    Attributes:
        kind: ``bytes``, ``bpe`` or ``file``.
        vocab_size: entries; 0: 256 for ``bytes``, what the file has for ``file``; ``bpe`` needs a number.
        path: with ``file``, a ``tokenizer.json`` as the ``tokenizers`` library writes it, or a folder with one.
    """

    kind: str = "bytes"
    vocab_size: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSpec:
    """The optimizer and the global-norm clip (0: no clipping).

    Attributes:
        name: ``adamw``, ``adam``, ``sgd``, another of ``torch.optim`` in small letters, or ``module:Class``.
        lr: peak learning rate.
        betas: of the Adam family.
        eps: of the Adam family.
        weight_decay: of matrices; vectors have none.
        clip_norm: bound of the mean gradient's norm; 0 does not clip.
        options: further keyword arguments of the optimizer.
    """

    name: str = "adamw"
    lr: float = 3e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """How the learning rate goes on from step to step.

    Attributes:
        kind: ``cosine`` or ``constant``, after a linear warm-up.
        warmup_steps: steps of the warm-up; 0: none.
        min_lr_ratio: share of the peak learning rate at which ``cosine`` ends.
    """

    kind: str = "cosine"
    warmup_steps: int = 20
    min_lr_ratio: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """The global batch of a step, the same on any number of workers.

    Attributes:
        sequences: of a global batch.
        micro_batches: parts of equal size that it is cut into; they are dealt to the workers.
    """

    sequences: int = 16
    micro_batches: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSpec:
    """Evaluation on documents that are held out.

    Attributes:
        every: steps between two evaluations; 0: never.
        sequences: held-out ones that each evaluation computes.
    """

    every: int = 50
    sequences: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """What to train.

    Attributes:
        task: ``llama``, ``hf_causal_lm``, or ``module:callable`` of the user's own.
        options: free values for a task of the user's own.
        model: the model.
        data: what to train on.
        tokenizer: how text becomes tokens.
        optimizer: how the weights change.
        schedule: learning rate by step.
        steps: optimizer steps of the run.
        batch: of a step.
        eval: held-out evaluation.
        seed: of everything random.
        precision: ``auto`` (bfloat16 autocast where the device has it), ``float32`` or ``float64``.
        compile: run the model through ``torch.compile``.
    """

    task: str = "llama"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: ModelSpec = ModelSpec()
    data: TrainDataSpec = TrainDataSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    steps: int = 100
    batch: BatchSpec = BatchSpec()
    eval: EvalSpec = EvalSpec()
    seed: int = 0
    precision: str = "auto"
    compile: bool = False
