"""How long an agent waits for a word.

Without it an agent could stop its workers too soon, or wait for a controller that is gone.
"""

from trainctl.agent.patience import FIRST_WORD_S, LEADER_SILENT_S, Patience


def test_one_that_said_nothing_yet_is_waited_for_less_long_than_a_leader() -> None:
    patience = Patience()
    assert patience.limit_s(connected=True, heartbeat_s=0.25) == LEADER_SILENT_S
    assert patience.limit_s(connected=False, heartbeat_s=0.25) == FIRST_WORD_S
    assert patience.limit_s(connected=True, heartbeat_s=5.0) == 20.0


def test_it_waits_longer_when_nobody_answers_and_is_short_again_after_a_word() -> None:
    patience = Patience()
    waits = []
    for _ in range(5):
        waits.append(patience.limit_s(connected=False, heartbeat_s=1.0))
        patience.nobody_answered()
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0], "never longer than for a leader"
    patience.heard()
    assert patience.limit_s(connected=False, heartbeat_s=1.0) == FIRST_WORD_S
