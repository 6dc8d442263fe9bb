"""``trainctl checkpoints export``: needs numpy and fsspec, but neither torch nor, for a path, a controller."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.folders.places import absolute, is_path, or_folder
from trainctl.cli.terminal.progress import Progress
from trainctl.core.errors import PreconditionError
from trainctl.core.units import format_count

_NEEDED = ("numpy", "fsspec")


def run(context: Context) -> int:
    """Writes a checkpoint as a Hugging Face folder."""
    options = context.options
    exporter = _exporter()
    source = _path_source(options.source, options.step) if is_path(options.source) else _job_source(context)
    destination = str(Path(options.destination).expanduser().absolute())
    context.console.say(f"exporting {source}")
    context.on_interrupt = (f"interrupted: what is in {destination} may be incomplete",)
    with Progress(context.console, "exported") as progress:
        report = exporter(source, destination, dtype=options.dtype, overwrite=options.force, moving=progress.at)
    context.console.data(destination)
    if "config.json" in report.files:
        context.console.say("transformers loads it: AutoModelForCausalLM.from_pretrained(...)")
    else:
        context.console.say("weights only, by the model's own names: no config.json is kept with this checkpoint")
    if report.healed_reads:
        healed = format_count(report.healed_reads, "read")
        context.console.say(f"{healed} only right when repeated: see what changes bytes on the way")
    return exit_codes.OK


def _exporter() -> Any:
    """The export function; imported only here, since a controller's machine need not have what it takes."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PreconditionError(
            f"the export needs {' and '.join(missing)}, which is not installed",
            hint="install the extra: pip install 'trainctl-orchestrator[export]'",
        )
    return importlib.import_module("trainctl.checkpoint.export").export_checkpoint


def _path_source(source: str, step: int | None) -> str:
    from trainctl.checkpoint.manifest.names import step_folder

    root = absolute(source)
    return root if step is None else f"{root.rstrip('/')}/{step_folder(step)}"


def _job_source(context: Context) -> str:
    """The newest checkpoint of the job, or the one of ``--step``."""
    from trainctl.cli.commands.checkpoints import ask, choose
    from trainctl.cli.connection.client import connect, find_job

    source, step = context.options.source, context.options.step
    with or_folder(source), connect(context) as client:
        job = find_job(context, client, source)
        found = ask(client, job.uid).checkpoints
    return choose(job, found, step).uri
