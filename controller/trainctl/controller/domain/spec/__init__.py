"""The job file: parsing with positions, checking everything at once, overrides, defaults."""

from trainctl.controller.domain.spec.defaults import effective
from trainctl.controller.domain.spec.no_effect import no_effect
from trainctl.controller.domain.spec.overrides import apply_overrides
from trainctl.controller.domain.spec.parse import job_from_wire, parse_job
from trainctl.controller.domain.spec.rules import validate

__all__ = ["apply_overrides", "effective", "job_from_wire", "no_effect", "parse_job", "validate"]
