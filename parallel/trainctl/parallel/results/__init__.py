"""What a run leaves for people: hooks that are told of every committed step, on one worker, beside the training."""

from trainctl.parallel.results.hook import Hook, Recovery, Run, RunEnd

__all__ = ["Hook", "Recovery", "Run", "RunEnd"]
