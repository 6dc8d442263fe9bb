"""No method without a rule about who may call it, and no rule without a method.

Without it a new call could be open to everybody.
"""

from __future__ import annotations

from trainctl.controller.rpc.permissions import RULES, About
from trainctl.controller.rpc.requests import has_field
from unit.access.api import message_of, methods, path_of


def test_the_table_of_permissions_has_every_method_of_every_service() -> None:
    assert {path_of(method) for method in methods()} == set(RULES)


def test_what_is_about_a_tenant_names_it() -> None:
    for method in methods():
        request = message_of(method)()
        if RULES[path_of(method)].about is About.TENANT:
            assert any(has_field(request, name) for name in ("tenant", "job", "grants")), method.full_name
        else:
            assert not has_field(request, "tenant"), method.full_name


def test_what_changes_something_can_be_asked_for_again() -> None:
    for method in methods():
        rule = RULES[path_of(method)]
        if rule.changes and rule.about is About.TENANT:
            assert has_field(message_of(method)(), "request_id"), method.full_name
