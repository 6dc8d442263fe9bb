"""Checks of what is installed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainctl.cli.doctor.facts import Facts, Requirement
from trainctl.cli.doctor.finding import Finding, fail, ok, warn
from trainctl.protos.version import DISTRIBUTION

_OF_DEVELOPERS = frozenset({"bench", "dev"})
"""Extras for work on this project."""
_BOUND = re.compile(r"\s*(>=|<=|==|!=|~=|<|>)\s*([\w.*+!-]+)\s*")


def fits(version: str, bounds: str) -> bool:
    """Whether a version keeps to bounds such as ``>=1.80,<2``; only the numbers of a release count."""
    return all(_keeps(version, match[1], match[2]) for part in bounds.split(",") if (match := _BOUND.fullmatch(part)))


def _keeps(version: str, operator: str, bound: str) -> bool:
    found, wanted = _release(version), _release(bound)
    length = max(len(found), len(wanted))
    same = found[: len(wanted)] == wanted if bound.endswith("*") else None
    a, b = (numbers + (0,) * (length - len(numbers)) for numbers in (found, wanted))
    if operator == "~=":
        return a >= b and found[: len(wanted) - 1] == wanted[:-1]
    if operator in ("==", "!="):
        return (a == b if same is None else same) == (operator == "==")
    return {">=": a >= b, "<=": a <= b, "<": a < b, ">": a > b}[operator]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in match[1].split(".")) if match is not None else ()


def check_packages(facts: Facts) -> Iterator[Finding]:
    """What the command and the controller need."""
    software = facts.software
    if not software.requirements:
        yield warn(
            "packages",
            f"{DISTRIBUTION} is not installed as a package, so its requirements are not known",
            "install it: make install, or pip install -e .",
        )
        return
    wrong = [text for each in software.requirements if not each.extra and (text := _problem(facts, each))]
    if wrong:
        yield fail("packages", "; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}")
    else:
        number = sum(not each.extra for each in software.requirements)
        yield ok("packages", f"version {software.own_version}; the {number} packages it needs fit")


def check_extras(facts: Facts) -> Iterator[Finding]:
    """Extras: whole, absent, or half there, which is never meant."""
    extras = dict.fromkeys(each.extra for each in facts.software.requirements if each.extra)
    for extra in extras:
        if extra not in _OF_DEVELOPERS:
            yield _check_extra(facts, extra)


def _check_extra(facts: Facts, extra: str) -> Finding:
    wanted = _of_extra(facts, extra)
    missing = [each.name for each in wanted if _is_missing(facts, each)]
    wrong = [text for each in wanted if each.name not in missing and (text := _problem(facts, each))]
    name, remedy = f"extra {extra}", f"pip install '{DISTRIBUTION}[{extra}]'"
    if wrong:
        return fail(name, "; ".join(wrong), f"{remedy} --upgrade")
    if not missing:
        return ok(name, f"{', '.join(each.name for each in wanted)} fit")
    if extra == "agent" and facts.local:
        return fail(name, f"workers run here, but {', '.join(missing)} is missing", remedy)
    if {each.name for each in wanted} - set(missing) - _explained(facts, extra):
        return warn(name, f"half there: {', '.join(missing)} is missing", remedy)
    return ok(name, f"not installed: {', '.join(missing)}")


def _explained(facts: Facts, extra: str) -> set[str]:
    """Packages that are here for another extra, which is whole, or for everybody."""
    others = {each.extra for each in facts.software.requirements} - {extra}
    whole = [other for other in others if not any(_is_missing(facts, each) for each in _of_extra(facts, other))]
    return {each.name for other in whole for each in _of_extra(facts, other)}


def _of_extra(facts: Facts, extra: str) -> list[Requirement]:
    return [each for each in facts.software.requirements if each.extra == extra]


def _is_missing(facts: Facts, requirement: Requirement) -> bool:
    return facts.software.installed.get(requirement.name) is None


def _problem(facts: Facts, requirement: Requirement) -> str:
    version = facts.software.installed.get(requirement.name)
    if version is None:
        return f"{requirement.name} is missing"
    if fits(version, requirement.bounds):
        return ""
    return f"{requirement.name} {version} does not fit, expected {requirement.bounds}"


def check_torch(facts: Facts) -> Iterator[Finding]:
    """Torch, in a process of its own."""
    torch = facts.torch
    if torch.version:
        built = f"CUDA {torch.cuda}" if torch.cuda else "the CPU only"
        if "gloo" not in torch.backends:
            yield fail("torch", f"torch {torch.version} has no gloo", "install torch from pytorch.org for this system")
        else:
            yield ok("torch", f"torch {torch.version}, built for {built}, with {', '.join(torch.backends)}")
    elif facts.software.installed.get("torch") is None and not facts.local:
        yield ok("torch", "not installed; only machines that train need it")
    else:
        yield fail(
            "torch",
            f"torch cannot be imported: {torch.error}",
            f"pip install --force-reinstall '{DISTRIBUTION}[agent]'",
        )


def check_devices(facts: Facts) -> Iterator[Finding]:
    """CUDA: the driver, torch, and whether the two get on; NCCL where there are two devices."""
    driver, torch = facts.driver, facts.torch
    if not driver.version:
        cuda = facts.job is not None and facts.job.cuda
        if cuda and facts.local:
            yield fail(
                "CUDA", "the job wants CUDA devices, but there is no NVIDIA driver here", "install the NVIDIA driver"
            )
        else:
            yield ok("CUDA", "no NVIDIA driver: this machine computes on its CPU")
        return
    seen = f"driver {driver.version} with {driver.devices} device(s)"
    if not torch.version:
        yield warn("CUDA", f"{seen}, but torch cannot be imported", "see the finding about torch")
    elif not torch.cuda:
        yield fail(
            "CUDA",
            f"{seen}, but torch {torch.version} was built for the CPU only",
            "pip install torch --index-url https://download.pytorch.org/whl/cu126, or what suits the driver",
        )
    elif torch.device_error or not torch.devices:
        hidden = f" (CUDA_VISIBLE_DEVICES={driver.visible!r})" if driver.visible is not None else ""
        why = torch.device_error or "torch sees no device"
        yield fail(
            "CUDA",
            f"{seen}{hidden}, but {why}",
            f"is the driver new enough for CUDA {torch.cuda}? nvidia-smi shows what it supports",
        )
    else:
        yield ok("CUDA", f"{seen}; torch computes on {', '.join(torch.devices)}")
        yield from _check_nccl(facts)


def _check_nccl(facts: Facts) -> Iterator[Finding]:
    torch = facts.torch
    if "nccl" not in torch.backends:
        yield fail("NCCL", f"torch {torch.version} has no NCCL", "install torch for CUDA from pytorch.org")
    elif torch.all_reduce == "ok":
        yield ok("NCCL", "an all-reduce over two devices gave the right sum")
    elif torch.all_reduce:
        yield fail(
            "NCCL",
            f"an all-reduce over two devices failed: {torch.all_reduce}",
            "`NCCL_DEBUG=INFO trainctl doctor -v` shows why; is /dev/shm large enough, is peer access broken "
            "(NCCL_P2P_DISABLE=1 tells)?",
        )
    else:
        yield ok("NCCL", "one device only: nothing to reduce over")
