"""``trainctl checkpoints import``: needs neither torch nor a controller."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.folders.places import absolute
from trainctl.core.units import format_bytes, format_count


def run(context: Context) -> int:
    """Makes a checkpoint of a folder of torch DCP or of Hugging Face safetensors."""
    from trainctl.checkpoint.importing import Naming, import_checkpoint

    options = context.options
    source, target = absolute(options.source), absolute(options.target)
    context.console.say(f"importing {source}")
    context.on_interrupt = (f"interrupted: what is in {target} is no checkpoint",)
    naming = Naming(
        section=options.section,
        strip_prefix=options.strip_prefix,
        exclude=tuple(options.exclude),
        parameters_only=options.parameters_only,
    )
    report = import_checkpoint(
        source, target, naming=naming, step=options.step, cursor=options.samples, progress=context.console.say
    )
    found = "parameters and the state of an optimizer" if report.optimizer else "parameters only"
    size = f"{format_count(report.tensors, 'tensor')}, {format_bytes(report.data_bytes)}"
    context.console.say(f"imported from {report.format}: {found}, {size}")
    context.console.data(report.ref.uri)
    context.console.say(f"a job begins with it: spec.checkpoint.resumeFrom: {report.ref.uri}")
    return exit_codes.OK
