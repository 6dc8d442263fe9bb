"""Each port that the architecture page names has one contract-test class, and its implementations inherit that.

Without it a second implementation could keep half of what the first one promised.
"""

from __future__ import annotations

import re

from architecture.pages import ROOT


def test_each_port_of_the_page_has_one_contract_that_is_inherited() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    sentence = re.search(r"^Ports, each with one contract-test class[^:]*:\n?(.*?)\.$", page, re.MULTILINE | re.DOTALL)
    assert sentence is not None
    ports = re.findall(r"`(\w+)`", sentence[1])
    assert len(ports) >= 5
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    for port in ports:
        defined = sum(len(re.findall(rf"^class {port}Contract\b", text, re.MULTILINE)) for text in sources)
        inherited = any(re.search(rf"^class Test\w+\({port}Contract\)", text, re.MULTILINE) for text in sources)
        assert (defined, inherited) == (1, True), port
