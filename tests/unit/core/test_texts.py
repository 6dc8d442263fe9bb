"""Without it a name out of a job file could clear somebody's terminal or bury an error under a wall of text."""

from trainctl.core.texts import bounded, harmless, listed, look_alikes, printable, quoted, shortened


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


def test_colours_are_harmless_and_all_other_codes_are_spelled_out() -> None:
    assert harmless("\x1b[1;31mred\x1b[0m\tand\nlines") == "\x1b[1;31mred\x1b[0m\tand\nlines"
    assert harmless("\x1b[2J\x1b]0;title\x07") == r"\x1b[2J\x1b]0;title\x07"
    assert harmless("a\rb\x08\x00\x7f\x9b") == r"a\rb\x08\x00\x7f\x9b"
    assert harmless("\u202etxt.exe\u2066") == r"\u202etxt.exe\u2066", "it would turn the line round"


def test_names_in_a_sentence_are_sorted() -> None:
    assert listed({"b", "a"}) == "a, b"
    assert listed([]) == "none"


def test_letters_that_look_like_others_are_named() -> None:
    assert look_alikes("plain") == ""
    assert look_alikes("\u0430d\u0430m") == '; not plain letters: "\u0430" (U+0430)'
    assert look_alikes("\u0430\u0435\u043e\u0440").count("U+") == 3
