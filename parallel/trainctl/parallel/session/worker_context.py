"""What everything in a session leans on: whom it obeys, where it is, how it waits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.codec import from_wire
from trainctl.core.records.spec import JobSpec, TrainJob
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.faults import FaultPlan
from trainctl.core.system.memory_folder import FAILURE_DOMAIN_VARIABLE, MEMORY_VARIABLE
from trainctl.core.timeouts import Timeouts
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.session.control import Control, ProgressPage
from trainctl.parallel.session.instructions import Instructions
from trainctl.parallel.session.sign_of_life import SignOfLife
from trainctl.parallel.session.whereabouts import Whereabouts
from trainctl.parallel.transfers import TransferBoard


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """One worker, without its training state.

    Attributes:
        desired: the first instruction: job, slot, incarnation and folders never change.
        spec: of the job; defaults where there is none.
        control: whom it reports to.
        instructions: what it is told.
        where: where it is.
        waiter: how it waits.
        faults: armed fault points.
        signs: its progress page.
        transfers: how far its saves and its load are, for the page.
        memory: where its node keeps snapshots of the job; None: nowhere.
        failure_domain: what its node fails together with; empty: with no other node.
    """

    desired: WorkerDesired
    spec: JobSpec
    control: Control
    instructions: Instructions
    where: Whereabouts
    waiter: Waiter
    faults: FaultPlan
    signs: SignOfLife
    transfers: TransferBoard
    memory: NodeMemory | None = None
    failure_domain: str = ""

    @classmethod
    def of(cls, control: Control, page: ProgressPage) -> WorkerContext:
        """Puts it together. Waits for the first instruction."""
        signs = SignOfLife(page)
        instructions = Instructions(control, touch=signs.touch)
        desired = instructions.latest
        spec = from_wire(TrainJob, desired.spec).spec if desired.spec else JobSpec()
        faults = FaultPlan()
        where = Whereabouts(desired, signs, faults)
        waiter = Waiter(
            aborted=instructions.aborted,
            touch=signs.touch,
            where=where.__str__,
            timeout_s=Timeouts.for_profile(spec.recovery.profile).collective_s,
        )
        return cls(
            desired=desired,
            spec=spec,
            control=control,
            instructions=instructions,
            where=where,
            waiter=waiter,
            faults=faults,
            signs=signs,
            transfers=TransferBoard(signs.transfer),
            memory=NodeMemory(Path(folder), desired.job_uid) if (folder := os.environ.get(MEMORY_VARIABLE)) else None,
            failure_domain=os.environ.get(FAILURE_DOMAIN_VARIABLE, ""),
        )
