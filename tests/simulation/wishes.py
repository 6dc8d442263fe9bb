"""What people ask for in a run, by name; each request may reach any controller, and is repeated until answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from simulation.plan import Step

if TYPE_CHECKING:
    from simulation.world import World

Act = Callable[["World", Step, str], None]


def submit(world: World, step: Step, request_id: str) -> None:
    """One more job."""
    world.submit(_another(world, step), request_id, first=step.who)


def submit_twice(world: World, step: Step, request_id: str) -> None:
    """F37: the same request reaches two controllers at once, three times in all."""
    job = _another(world, step)
    for first in range(3):
        world.submit(job, request_id, first=first)


def cancel(world: World, step: Step, request_id: str) -> None:
    world.verb("CancelJob", step, request_id, grace_s=2.0)


def delete(world: World, step: Step, request_id: str) -> None:
    world.verb("DeleteJob", step, request_id, force=True)


def pause(world: World, step: Step, request_id: str) -> None:
    world.verb("PauseJob", step, request_id)


def pause_twice(world: World, step: Step, request_id: str) -> None:
    """The same request, twice at once."""
    for number in range(2):
        world.verb("PauseJob", replace(step, who=step.who + 100 * number), request_id)


def resume(world: World, step: Step, request_id: str) -> None:
    world.verb("ResumeJob", step, request_id)


def restart(world: World, step: Step, request_id: str) -> None:
    world.verb("RestartJob", step, request_id, allow_loss=step.count == 1)


def rollback(world: World, step: Step, request_id: str) -> None:
    world.verb("RollbackJob", step, request_id)


def scale(world: World, step: Step, request_id: str) -> None:
    most = min(step.count, len(world.nodes))
    world.verb("ScaleJob", step, request_id, min=1, max=most, target=most)


def pin(world: World, step: Step, request_id: str) -> None:
    """The checkpoint is to stay."""
    world.verb("PinCheckpoint", step, request_id, step=world.saved_step(step), pinned=True)


def unpin(world: World, step: Step, request_id: str) -> None:
    world.verb("PinCheckpoint", step, request_id, step=world.saved_step(step), pinned=False)


def remove_checkpoint(world: World, step: Step, request_id: str) -> None:
    world.verb("DeleteCheckpoint", step, request_id, step=world.saved_step(step))


def cordon(world: World, step: Step, request_id: str) -> None:
    """No new work for a node; somebody takes it back in the end."""
    world.users.verb("CordonNode", world.node(step.who).name, request_id, first=step.count)


def drain(world: World, step: Step, request_id: str) -> None:
    """Its workers are to leave, too."""
    world.users.verb("CordonNode", world.node(step.who).name, request_id, first=step.count, drain=True)


def uncordon(world: World, step: Step, request_id: str) -> None:
    world.users.verb("UncordonNode", world.node(step.who).name, request_id, first=step.count)


WISHES: Mapping[str, Act] = {
    "submit": submit,
    "submit_twice": submit_twice,
    "cancel": cancel,
    "delete": delete,
    "pause": pause,
    "pause_twice": pause_twice,
    "resume": resume,
    "restart": restart,
    "rollback": rollback,
    "scale": scale,
    "pin": pin,
    "unpin": unpin,
    "remove_checkpoint": remove_checkpoint,
    "cordon": cordon,
    "drain": drain,
    "uncordon": uncordon,
}
HARMLESS = frozenset(
    {"submit", "submit_twice", "cancel", "delete", "pin", "unpin", "remove_checkpoint", "cordon", "uncordon"}
)
"""Wishes for which no job begins a second generation."""


def _another(world: World, step: Step) -> dict[str, object]:
    """A small job under a name of its own, or one that is taken."""
    name = f"more-{step.who % 3}"
    return replace(world.plan.jobs[0], name=name, least=1, most=1, per_node=1, steps=40).wire()
