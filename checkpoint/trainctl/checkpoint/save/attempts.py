"""How the writers of one save name it."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.checkpoint.manifest.names import attempt_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to save one step; all its writers name it alike (``manifest.names.attempt_id``).

    Attributes:
        job: uid of the job.
        step: step that the state is at.
        lineage: chain of steps it belongs to.
        epoch: leader's fencing epoch of the generation that saves.
        attempt: 16 hex digits, never used before.
    """

    job: str
    step: int
    lineage: int
    epoch: int
    attempt: str

    @property
    def folder(self) -> str:
        """Where it lies under the root."""
        return attempt_folder(self.step, self.attempt)

    def __str__(self) -> str:
        return f"job {self.job}, step {self.step}, attempt {self.attempt}"
