"""Whether the model of a job fits what lies outside: the folder it begins with, the checkpoint it goes on from."""

from __future__ import annotations

from trainctl.core.errors import CheckpointError, Problem
from trainctl.core.json_text import NoJsonError, parse_json
from trainctl.core.plain import is_mapping
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import TrainJob
from trainctl.core.texts import shortened
from trainctl.parallel.models.hf_folder import open_folder
from trainctl.parallel.plan.llama_folder import llama_folder_problems
from trainctl.parallel.plan.model_size import SHAPE_FIELDS, hf_shape
from trainctl.parallel.plan.task_rules import HF_CAUSAL_LM, LLAMA

_MAX_CONFIG_BYTES = 1 << 20


def folder_problems(job: TrainJob) -> tuple[Problem, ...]:
    """What is wrong with the Hugging Face folder that a built-in task begins with. Blocks on the disk."""
    train = job.spec.train
    if train.task not in (LLAMA, HF_CAUSAL_LM) or not train.model.path:
        return ()
    folder, problems = open_folder(train.model)
    if folder is not None and train.task == LLAMA:
        return llama_folder_problems(folder.config, train.model)
    return problems


def resume_problems(job: TrainJob, resume: CheckpointRef) -> tuple[Problem, ...]:
    """Where the checkpoint's model has another shape than the job's.

    Raises:
        CheckpointError: its ``config.json`` cannot be read.
    """
    from trainctl.checkpoint.kept import catalog

    if job.spec.train.task != LLAMA:
        return ()  # the workers compare every tensor
    config = catalog.artifact(resume, "config.json", max_bytes=_MAX_CONFIG_BYTES)
    if config is None:
        return ()
    try:
        saved = parse_json(config)
    except NoJsonError as error:
        raise CheckpointError(f"config.json of {resume.uri} is not JSON") from error
    if not is_mapping(saved):
        return ()
    return tuple(
        Problem(
            path=f"spec.train.model.{SHAPE_FIELDS[name]}",
            message=f"{resume.uri} was saved with {shortened(str(saved[name]))}, found {wanted}",
        )
        for name, wanted in hf_shape(job.spec.train.model).items()
        if saved.get(name, wanted) != wanted
    )
