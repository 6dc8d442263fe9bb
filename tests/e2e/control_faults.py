"""Faults of everything but the workers: drawn from a seed, and carried out on a shared system."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from e2e.network import Condition
from e2e.shared_system import SharedSystem
from e2e.store_history import StoreHistory
from etcd_store.controllers import ControllerProcess, answers
from trainctl.controller.store.port import StoreFullError, StoreUnavailableError

KINDS: Mapping[str, int] = {
    "kill_leader": 4,
    "kill_standby": 1,
    "freeze_leader": 4,
    "freeze_standby": 1,
    "kill_member": 3,
    "freeze_member": 2,
    "kill_all_members": 1,
    "freeze_all_members": 1,
    "cut_store": 3,
    "silence_store": 3,
    "slow_store": 2,
    "cut_agents": 2,
    "silence_agents": 2,
    "deaf_agents": 1,
    "slow_agents": 1,
    "fill_store": 1,
    "fill_disk": 2,
}
"""What can happen, and how often relative to the rest."""

_AGENTS_CUT_S = 4.0
"""Less than it takes a leader to give agents up: a cut between all agents and a leader that leads is no fault of the
control plane alone."""
_JUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the script: what, how long after the one before, for how long, and a number that picks a victim."""

    kind: str
    pause_s: float
    length_s: float
    choice: float


def script_of(seed: int, count: int, *, longest_s: float = 8.0, kinds: Mapping[str, int] = KINDS) -> list[Fault]:
    """The faults of a seed, the same list every time; at first each kind that fits once, so that none is left out."""
    rng = random.Random(seed)
    every = rng.sample(list(kinds), len(kinds))[:count]
    more = rng.choices(list(kinds), weights=list(kinds.values()), k=count - len(every))
    return [
        Fault(kind, round(rng.uniform(0, 2), 2), round(rng.uniform(0.3, longest_s), 2), round(rng.random(), 3))
        for kind in (*every, *more)
    ]


@dataclass(slots=True)
class _Hurt:
    what: str
    heals_s: float
    heal: Callable[[], None]


@dataclass(slots=True)
class ControlFaults:
    """Carries a script out; faults overlap, but each part is hurt by one at a time.

    Attributes:
        system: whose parts.
        history: of its store.
        done: what happened and when, for people.
    """

    system: SharedSystem
    history: StoreHistory
    done: list[str] = field(default_factory=list)
    _hurt: dict[str, _Hurt] = field(default_factory=dict)
    _started_s: float = field(default_factory=time.monotonic)

    def run(self, script: Sequence[Fault]) -> None:
        """All faults, then all is healed."""
        for fault in script:
            self._until(time.monotonic() + fault.pause_s)
            getattr(self, f"_{fault.kind}")(fault)
        self._until(max((hurt.heals_s for hurt in self._hurt.values()), default=0.0))
        assert not self._hurt

    def _until(self, end_s: float) -> None:
        """Heals what is due up to then."""
        while True:
            due = min(self._hurt.items(), key=lambda item: item[1].heals_s, default=None)
            wakes_s = min(end_s, due[1].heals_s if due is not None else end_s)
            time.sleep(max(0.0, wakes_s - time.monotonic()))
            if due is None or due[1].heals_s > end_s:
                return
            del self._hurt[due[0]]
            due[1].heal()
            self._note(f"healed: {due[1].what}")

    def _note(self, what: str) -> None:
        self.done.append(f"{time.monotonic() - self._started_s:6.2f} s: {what}")

    def _hurt_part(
        self, part: str, what: str, length_s: float, hurt: Callable[[], None], heal: Callable[[], None]
    ) -> None:
        if part in self._hurt:
            self._until(self._hurt[part].heals_s)
        hurt()
        self._note(what)
        self._hurt[part] = _Hurt(what, time.monotonic() + length_s, heal)

    def _leader(self) -> ControllerProcess:
        """Whoever leads; while nobody does, one that is not hurt if there is one."""
        unhurt = [one for one in self.system.controllers if one.folder.name not in self._hurt]
        leading = [one for one in unhurt if one.address and answers(one.address)]
        return (leading or unhurt or list(self.system.controllers))[0]

    def _standby(self) -> ControllerProcess:
        leader = self._leader()
        return next(one for one in self.system.controllers if one is not leader)

    def _kill(self, one: ControllerProcess, fault: Fault) -> None:
        self._hurt_part(one.folder.name, f"SIGKILL {one.folder.name}", fault.length_s, one.kill, one.start)

    def _freeze(self, one: ControllerProcess, fault: Fault) -> None:
        self._hurt_part(
            one.folder.name,
            f"SIGSTOP {one.folder.name} for {fault.length_s:g} s",
            fault.length_s,
            lambda: one.send(signal.SIGSTOP),
            lambda: one.send(signal.SIGCONT),
        )

    def _kill_leader(self, fault: Fault) -> None:
        self._kill(self._leader(), fault)

    def _kill_standby(self, fault: Fault) -> None:
        self._kill(self._standby(), fault)

    def _freeze_leader(self, fault: Fault) -> None:
        self._freeze(self._leader(), fault)

    def _freeze_standby(self, fault: Fault) -> None:
        self._freeze(self._standby(), fault)

    def _members(self, fault: Fault, number: signal.Signals, *, everybody: bool) -> None:
        """Kills or freezes one member, or all."""
        all_members = self.system.etcd.members
        chosen = all_members if everybody else [all_members[int(fault.choice * len(all_members))]]

        def hurt() -> None:
            for member in chosen:
                member.kill() if number is signal.SIGKILL else member.signal(number)

        def heal() -> None:
            for member in chosen:
                member.start() if number is signal.SIGKILL else member.signal(signal.SIGCONT)

        names = ", ".join(member.name for member in chosen)
        self._hurt_part("etcd", f"{number.name} {names} for {fault.length_s:g} s", fault.length_s, hurt, heal)

    def _kill_member(self, fault: Fault) -> None:
        self._members(fault, signal.SIGKILL, everybody=False)

    def _freeze_member(self, fault: Fault) -> None:
        self._members(fault, signal.SIGSTOP, everybody=False)

    def _kill_all_members(self, fault: Fault) -> None:
        self._members(fault, signal.SIGKILL, everybody=True)

    def _freeze_all_members(self, fault: Fault) -> None:
        self._members(fault, signal.SIGSTOP, everybody=True)

    def _between(self, fault: Fault, condition: Condition, *, store: bool, delay_s: float = 0.0) -> None:
        """Hurts a controller's wires: to all members, or from all agents."""
        index = self.system.controllers.index(self._leader() if fault.choice < 0.8 else self._standby())
        name = self.system.controllers[index].folder.name
        wires = self.system.to_members[index] if store else (self.system.to_controllers[index],)
        length_s = fault.length_s if store else min(fault.length_s, _AGENTS_CUT_S)

        def hurt() -> None:
            for wire in wires:
                wire.hurt(condition, delay_s=delay_s)

        def heal() -> None:
            for wire in wires:
                wire.heal()

        where = "etcd" if store else "agents"
        what = f"{condition.value} (delay {delay_s:g} s) between {name} and {where} for {length_s:g} s"
        self._hurt_part(f"{name} {where}", what, length_s, hurt, heal)

    def _cut_store(self, fault: Fault) -> None:
        self._between(fault, Condition.CUT, store=True)

    def _silence_store(self, fault: Fault) -> None:
        self._between(fault, Condition.SILENT if fault.choice < 0.5 else Condition.DEAF, store=True)

    def _slow_store(self, fault: Fault) -> None:
        self._between(fault, Condition.OPEN, store=True, delay_s=fault.choice / 2)

    def _cut_agents(self, fault: Fault) -> None:
        self._between(fault, Condition.CUT, store=False)

    def _silence_agents(self, fault: Fault) -> None:
        self._between(fault, Condition.SILENT, store=False)

    def _deaf_agents(self, fault: Fault) -> None:
        self._between(fault, Condition.DEAF, store=False)

    def _slow_agents(self, fault: Fault) -> None:
        self._between(fault, Condition.OPEN, store=False, delay_s=fault.choice / 2)

    def _fill_store(self, fault: Fault) -> None:
        """etcd runs into its quota, and takes no writes until somebody makes room and says so."""
        count = 0

        def hurt() -> None:
            nonlocal count
            with contextlib.suppress(StoreFullError):
                while True:
                    with contextlib.suppress(StoreUnavailableError):
                        self.history.write(f"/junk/{count}", bytes(_JUNK_BYTES))
                        count += 1

        def heal() -> None:
            etcd = self.system.etcd
            etcd.ctl("del", "--prefix", "/chaos/junk/")
            etcd.ctl("compact", str(self.history.batches()[-1].revision))
            for index in range(len(etcd.members)):
                etcd.ctl("defrag", member=index)
            etcd.ctl("alarm", "disarm")

        self._hurt_part("etcd", "etcd is full", fault.length_s, hurt, heal)

    def _fill_disk(self, fault: Fault) -> None:
        """No file of a controller can grow any more."""
        one = self._leader()
        if one.folder.name in self._hurt:
            self._until(self._hurt[one.folder.name].heals_s)
        assert one.process is not None
        pid = one.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)

        def limit(size_bytes: int) -> None:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

        self._hurt_part(
            one.folder.name, f"no room for {one.folder.name}", fault.length_s, lambda: limit(0), lambda: limit(hard)
        )
