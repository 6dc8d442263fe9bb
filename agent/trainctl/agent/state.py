"""What an agent does next: a pure function of what is desired and what lives. The supervisor carries it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainctl.core.records.worker import Instruction, WorkerDesired


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WorkerKey:
    """One life of one worker."""

    job_uid: str
    slot: int
    incarnation: int

    @property
    def place(self) -> tuple[str, int]:
        """The slot, which only one life may fill at a time."""
        return self.job_uid, self.slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What the agent knows of a worker it started.

    Attributes:
        key: which one.
        instructed: the newest instruction it was given.
        exited: its exit is confirmed.
        stopping_since_s: when it was told to stop, or got SIGTERM; None if it was not.
        terminated: it got SIGTERM.
        killed: it got SIGKILL.
    """

    key: WorkerKey
    instructed: WorkerDesired
    exited: bool = False
    stopping_since_s: float | None = None
    terminated: bool = False
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker."""

    desired: WorkerDesired


@dataclass(frozen=True, slots=True)
class Decline:
    """Report a worker as exited that was never started: it is to be stopped before it began."""

    desired: WorkerDesired


@dataclass(frozen=True, slots=True)
class Instruct:
    """Hand a living worker its new instruction."""

    key: WorkerKey
    desired: WorkerDesired


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM."""

    key: WorkerKey


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL, which also ends a stopped process."""

    key: WorkerKey
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Stop reporting an exited worker: nobody asks for it any more."""

    key: WorkerKey


Action = Start | Decline | Instruct | Terminate | Kill | Forget


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and when to ask again if nothing happens before (None: never)."""

    actions: tuple[Action, ...]
    wake_at_s: float | None


def key_of(desired: WorkerDesired) -> WorkerKey:
    """The life that ``desired`` is about."""
    return WorkerKey(job_uid=desired.job_uid, slot=desired.slot, incarnation=desired.incarnation)


def decide(
    desired: Sequence[WorkerDesired], lives: Sequence[Life], *, now_s: float, can_start: bool = True
) -> Decision:
    """Compares the whole desired state with all lives; calling it again after its actions were done gives no others.

    Args:
        desired: of the whole node.
        lives: every worker that was started (or declined) and not forgotten.
        now_s: on the axis of ``Life.stopping_since_s``.
        can_start: there is a fork server.
    """
    wanted = {key_of(each): each for each in desired}
    incarnations = {key.place: key.incarnation for key in wanted}
    actions: list[Action] = []
    deadlines: list[float] = []
    for life in lives:
        want = wanted.get(life.key)
        if life.exited:
            actions += [] if want else [Forget(life.key)]
        elif not life.killed:
            superseded = incarnations.get(life.key.place, life.key.incarnation) != life.key.incarnation
            actions += _steer(life, want, superseded=superseded, now_s=now_s)
            deadlines += _deadline(life, want, now_s=now_s)
    known = {life.key for life in lives}
    taken = {life.key.place for life in lives if not life.exited}
    for key, want in wanted.items():
        if key not in known:
            actions += _begin(want, taken=key.place in taken, can_start=can_start)
    return Decision(actions=tuple(actions), wake_at_s=min(deadlines, default=None))


def _begin(want: WorkerDesired, *, taken: bool, can_start: bool) -> Iterator[Action]:
    if want.instruction in (Instruction.STOP, Instruction.KILL):
        yield Decline(want)
    elif can_start and not taken:  # the exit of the slot's former life must be confirmed first
        yield Start(want)


def _steer(life: Life, want: WorkerDesired | None, *, superseded: bool, now_s: float) -> Iterator[Action]:
    grace_s = (want or life.instructed).grace_s
    overdue = life.stopping_since_s is not None and now_s >= life.stopping_since_s + grace_s
    if superseded:
        yield Kill(life.key, "a newer incarnation fills its slot")
    elif want is not None and want.instruction is Instruction.KILL:
        yield Kill(life.key, "the controller condemned it")
    elif want is not None and want != life.instructed:
        yield Instruct(life.key, want)
    elif overdue:
        yield Kill(life.key, f"it did not stop within {grace_s:g} s")
    elif want is None and (not life.terminated or life.stopping_since_s is None):  # None: it was wanted again since
        yield Terminate(life.key)


def _deadline(life: Life, want: WorkerDesired | None, *, now_s: float) -> Iterator[float]:
    """When a worker that is (or is being) stopped by this decision must have ended."""
    stops = want is None or want.instruction is Instruction.STOP
    if stops:
        since_s = now_s if life.stopping_since_s is None else life.stopping_since_s
        yield since_s + (want or life.instructed).grace_s
