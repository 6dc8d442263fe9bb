"""All checks, in the order in which they are numbered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainctl.cli.doctor import (
    check_certificates,
    check_controller,
    check_machine,
    check_software,
    check_storage,
    check_store,
)
from trainctl.cli.doctor.facts import Facts
from trainctl.cli.doctor.finding import Finding

CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    check_machine.check_python,
    check_software.check_packages,
    check_software.check_extras,
    check_software.check_torch,
    check_software.check_devices,
    check_machine.check_home,
    check_machine.check_shared_memory,
    check_machine.check_open_files,
    check_machine.check_processes,
    check_machine.check_names,
    check_machine.check_ports,
    check_controller.check_controller,
    check_store.check_store,
    check_controller.check_clock,
    check_certificates.check_certificates,
    check_controller.check_agents,
    check_controller.check_job,
    check_storage.check_storages,
    check_controller.check_timeouts,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """What all checks find; pure."""
    return tuple(finding for check in CHECKS for finding in check(facts))
