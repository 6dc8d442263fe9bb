"""Without it a name out of a job file could clear somebody's terminal or bury an error under a wall of text."""

from trainctl.core.texts import bounded, printable, quoted, shortened


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert printable("a\x1b[31mb\n") == r"a\x1b[31mb\n"
    assert printable("caf\udce9") == r"caf\xe9", "a byte that was no UTF-8"
    assert printable("\ud800") == r"\ud800"
    assert printable("Zürich ✓") == "Zürich ✓"


def test_foreign_text_in_a_sentence_is_short() -> None:
    assert quoted("a") == "'a'"
    assert quoted("x" * 61) == f"'{'x' * 57}...'"
    assert len(shortened("\x1b" * 5000)) <= 60


def test_a_line_is_no_longer_than_somebody_reads() -> None:
    path = "/" + "d" * 150 + "/file.yaml"
    assert bounded(f"{path} is wrong") == f"{path} is wrong"
    word = bounded(f"{'a' * 3000}{'z' * 3000}: no")
    assert word == f"{'a' * 60}...{'z' * 59}: no"
    assert len(bounded("ab " * 3000)) == 1000
