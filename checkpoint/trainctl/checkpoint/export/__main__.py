"""``python -m trainctl.checkpoint.export SRC DST``: a checkpoint as a Hugging Face folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trainctl.checkpoint.export.hf import DEFAULT_SHARD_BYTES, DTYPES, export_checkpoint
from trainctl.core.errors import TrainctlError
from trainctl.core.units import format_bytes, format_count


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = export_checkpoint(
            options.source,
            options.target,
            dtype=options.dtype,
            max_shard_bytes=options.max_shard_bytes,
            overwrite=options.force,
            progress=lambda line: print(line, file=sys.stderr),
        )
    except TrainctlError as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        return error.exit_code
    print(f"exported {report.tensors} tensors ({format_bytes(report.data_bytes)}) to {report.uri}")
    if report.healed_reads:
        print(f"{format_count(report.healed_reads, 'read')} came with wrong bytes and right when repeated")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainctl.checkpoint.export",
        description="Export the parameters of a checkpoint to a folder that transformers' from_pretrained loads.",
    )
    parser.add_argument("source", help="a checkpoint, a step's folder, or a folder of checkpoints (then the newest)")
    parser.add_argument("target", help="folder to write")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="cast floating-point tensors (default: as saved)")
    parser.add_argument("--max-shard-bytes", type=int, default=DEFAULT_SHARD_BYTES, help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="replace the model in a folder that is not empty")
    return parser


if __name__ == "__main__":
    sys.exit(main())
