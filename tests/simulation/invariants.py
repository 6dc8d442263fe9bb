"""The invariants of the control plane (reference 2.7), each a pure function of what a run left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from simulation.history import Change, History, Json
from simulation.nemeses import CONTROL_PLANE_ONLY, NEMESES
from simulation.upgrades import stored_forms_only_go_forward
from simulation.wishes import HARMLESS
from simulation.world import ENDED
from trainctl.controller import keys
from trainctl.controller.store.port import Compare, Target

Problems = Iterator[str]
SAMPLES_PER_STEP = 4
"""That a simulated worker counts."""
LATE_S = 3.0
"""After its decision a transaction has arrived, if it ever does."""


def terminal_phases_never_change(history: History) -> Problems:
    """I1."""
    for change in history.changes:
        before, after = change.before, change.after
        if before is not None and before["phase"] in ENDED and after is not None and after["phase"] != before["phase"]:
            yield f"{_at(change)}: {before['phase']} became {after['phase']}"
        if before is not None and after is None and before["phase"] not in ENDED:
            yield f"{_at(change)}: removed in phase {before['phase']}"


def generations_only_rise(history: History) -> Problems:
    """I2."""
    for change, before, after in _pairs(history):
        risen = after["generation"] - before["generation"]
        if not 0 <= risen <= 2:
            yield f"{_at(change)}: generation {before['generation']} became {after['generation']}"


def one_committed_generation_follows_another(history: History) -> Problems:
    """I3."""
    for change, before, after in _pairs(history):
        old, new = before.get("record"), after.get("record")
        if new is None or new == old:
            if old is not None and new is None:
                yield f"{_at(change)}: the committed record of generation {old['generation']} is gone"
            continue
        former = old["generation"] if old is not None else 0
        if new["generation"] <= former or new["predecessor"] != former:
            yield f"{_at(change)}: generation {new['generation']} after {new['predecessor']}, committed was {former}"
        if old is not None and new["lineage"] == old["lineage"] and new["targetStep"] < old["targetStep"]:
            yield f"{_at(change)}: goes back from step {old['targetStep']} to {new['targetStep']} in one lineage"
        wanted = [m["slot"] for m in new["members"]]
        if [m["globalRank"] for m in new["members"]] != list(range(len(wanted))) or wanted != sorted(set(wanted)):
            yield f"{_at(change)}: members out of order: {new['members']}"


def no_slot_is_given_away_twice(history: History) -> Problems:
    """I4."""
    used: dict[str, Counter[int]] = {}
    for change in history.changes:
        used[change.uid] = _bound(change.after)
        total: Counter[int] = Counter()
        for one in used.values():
            total.update(one)
        for agent, count in total.items():
            if count > history.ran.plan.slots:
                yield f"{_at(change)}: {count} workers on agent {agent}, it has {history.ran.plan.slots} slots"
    for uid, state in history.final.items():
        if state["phase"] in ENDED and _bound(state):
            yield f"{uid} has ended and still holds {dict(_bound(state))}"


def islands_are_placed_whole(history: History) -> Problems:
    """I5."""
    for change in history.changes:
        before, after = change.before, change.after
        if after is None or before is None:
            continue
        spec = after["spec"]["spec"]
        least = spec["nodes"]["min"] * spec["resources"]["workersPerNode"]
        placed = sum(_bound(after).values())
        if before["phase"] == "QUEUED" and after["phase"] == "ADMITTED" and placed < least:
            yield f"{_at(change)}: admitted with {placed} places, it needs {least}"
        old, new = before["islands"][0].get("record"), after["islands"][0].get("record")
        if new is not None and new != old and len(new["members"]) % spec["resources"]["workersPerNode"]:
            yield f"{_at(change)}: generation {new['generation']} has part of a node's workers"


def cordoned_nodes_get_no_new_work(history: History) -> Problems:
    """Part of I5: from the answer on, but for what was decided before and arrives late."""
    answered = {asked.request_id: asked.answered_s for asked in history.ran.asked}
    since: dict[str, float] = {}
    changes = {change.revision: change for change in history.changes}
    for written in history.ran.written:
        for event in written.events:
            if event.key.startswith(keys.MARKS) and event.current is not None:
                requests = [e.key.rsplit("/", 1)[1] for e in written.events if "/requests/" in e.key]
                known_s = max((answered.get(request) or float("inf") for request in requests), default=float("inf"))
                cordoned = keys.decode(event.current.value)["cordoned"]
                since[event.key.removeprefix(keys.MARKS)] = known_s if cordoned else float("inf")
        change = changes.get(written.revision)
        for node in _given(change) if change is not None else ():
            if written.at_s > since.get(node, float("inf")) + LATE_S:
                yield f"{_at(changes[written.revision])}: placed on {node}, which is cordoned"


def _given(change: Change) -> Iterator[str]:
    """Nodes on which a transaction gave a slot a place."""
    before = {slot["index"]: slot for slot in change.before["islands"][0]["slots"]} if change.before else {}
    for slot in change.after["islands"][0]["slots"] if change.after else ():
        if slot["agentIncarnation"] not in (0, before.get(slot["index"], {}).get("agentIncarnation", 0)):
            yield str(slot["node"])


def checkpoints_only_go_forward(history: History) -> Problems:
    """I6."""
    for change in history.changes:
        before, after = change.before, change.after
        if after is None:
            continue
        steps = [ref["step"] for ref in after["checkpoints"]]
        if steps != sorted(set(steps)):
            yield f"{_at(change)}: checkpoints {steps}"
        known = {ref["uri"] for ref in before["checkpoints"]} if before is not None else set()
        for ref in after["checkpoints"]:
            key = keys.checkpoint(after["spec"]["metadata"]["tenant"], change.uid, ref["step"])
            if ref["uri"] not in known and key not in change.wrote:
                yield f"{_at(change)}: checkpoint of step {ref['step']} without a record of its own"
        if before is not None and before["checkpoints"] and not after["checkpoints"] and not _removed(change):
            yield f"{_at(change)}: the last checkpoint is given up"
        if before is not None and _newest(after) < _newest(before) and not _went_back(change):
            yield f"{_at(change)}: newest checkpoint went back from {_newest(before)} to {_newest(after)}"
    for uid, state in history.final.items():
        uris = {ref["uri"] for ref in state["checkpoints"]}
        yield from (f"{uid}: {uri} is pinned and has no mark" for uri in {*state["pinned"]} & uris - history.ran.marked)
        yield from (f"{uid}: the files of {uri} are gone" for uri in sorted(uris & history.ran.gone))


def nobody_writes_under_a_newer_leader(history: History) -> Problems:
    """I7: in the store every write is the present leader's, and agents never obey an older one."""
    leader = epoch = 0
    for written in history.ran.written:
        taken = {event.key: event.current for event in written.events}
        created = taken.get(keys.LEADER)
        if created is not None:
            leader, former = created.create_revision, epoch
            entry = taken.get(keys.EPOCH)
            epoch = int(keys.decode(entry.value)) if entry is not None else former
            if epoch <= former:
                yield f"revision {written.revision}: epoch {former} is followed by {epoch}"
            continue
        if keys.LEADER in taken:
            leader = 0
        if written.client == "lease":
            continue
        held = Compare(keys.LEADER, Target.CREATE_REVISION, leader)
        if held not in written.compares and keys.LEADER not in taken:
            yield f"revision {written.revision}: {written.client} wrote {sorted(taken)} without leading"
    newest: dict[str, int] = {}
    for obeyed in history.ran.obeyed:
        if obeyed.epoch < newest.get(obeyed.life, 0):
            yield f"{obeyed.at_s:.3f} s: {obeyed.life} obeyed epoch {obeyed.epoch} after {newest[obeyed.life]}"
        newest[obeyed.life] = obeyed.epoch


def every_request_has_one_effect(history: History) -> Problems:
    """I8."""
    created = {change.uid: change.name for change in history.changes if change.before is None}
    answers: dict[str, set[str]] = {}
    for asked in history.ran.asked:
        if asked.method == "CreateJob" and asked.answer in created:
            answers.setdefault(asked.request_id, set()).add(asked.answer)
            if created[asked.answer] != asked.subject:
                yield f"request {asked.request_id}: made {created[asked.answer]}, not {asked.subject}"
    for request, uids in answers.items():
        if len(uids) > 1:
            yield f"request {request} made {sorted(uids)}"
    made = Counter(change.uid for change in history.changes if change.before is None)
    yield from (f"job {uid} was made {count} times" for uid, count in made.items() if count > 1)
    noted: Counter[str] = Counter()
    for written in history.ran.written:
        noted.update(e.key for e in written.events if "/requests/" in e.key and e.current is not None)
    yield from (f"{key} took effect {count} times" for key, count in noted.items() if count > 1)
    known = {uid for uids in answers.values() for uid in uids}
    asked_for = {a.request_id for a in history.ran.asked if a.method == "CreateJob"}
    if len(created) > len(asked_for) or len(set(created) - known) > len(asked_for - set(answers)):
        yield f"{len(created)} jobs were made by {len(asked_for)} requests"


def attempts_are_dense(history: History) -> Problems:
    """I9."""
    for change in history.changes:
        before = change.before["attempt"] if change.before is not None else 0
        if change.after is not None and change.after["attempt"] - before not in (0, 1):
            yield f"{_at(change)}: attempt {before} is followed by {change.after['attempt']}"


def budgets_are_kept(history: History) -> Problems:
    """I10."""
    for change in history.changes:
        after = change.after
        if after is None or after["phase"] in (*ENDED, "FAILING"):
            continue
        limits = after["spec"]["spec"]["recovery"]["maxRestarts"]
        restarts = after["restarts"]
        if len(restarts["processS"]) > limits["process"] or len(restarts["user"]) > limits["user"]:
            yield f"{_at(change)}: {len(restarts['processS'])} crashes, {limits['process']} are allowed"


def time_is_conserved(history: History) -> Problems:
    """I11."""
    for change in history.changes:
        if change.after is None:
            continue
        account = change.after["goodput"]
        spent, wall = sum(account["closedUs"].values()), account["sinceUs"] - account["startUs"]
        if spent != wall:
            yield f"{_at(change)}: {spent} us in buckets, {wall} us have passed"
        if any(amount < 0 for amount in account["closedUs"].values()):
            yield f"{_at(change)}: a bucket is negative: {account['closedUs']}"


def every_sample_counts_once(history: History) -> Problems:
    """I12: what a checkpoint holds was made by one vote for each step, and nothing else."""
    for (uid, uri), steps in history.ran.saved.items():
        wanted = int(uri.rsplit("/", 1)[1])
        if len(steps) != wanted:
            yield f"{uid} {uri}: made of {len(steps)} steps"
        votes = {(step, generation) for _, step, generation in history.ran.votes.get(uid, frozenset())}
        missing = [step for step, generation in enumerate(steps, 1) if (step, generation) not in votes]
        if missing:
            yield f"{uid} {uri}: nobody voted for steps {missing}"
    for change in history.changes:
        progress = change.after["progress"] if change.after is not None else {}
        if progress.get("step") and progress["cursor"] % SAMPLES_PER_STEP:
            yield f"{_at(change)}: {progress['cursor']} samples after step {progress['step']}"


def nothing_that_was_begun_is_left(history: History) -> Problems:
    """I13."""
    present: dict[str, float] = {}
    for written in history.ran.written:
        for event in written.events:
            if event.key.startswith(keys.INTENTS):
                present[event.key] = written.at_s
                if event.current is None:
                    del present[event.key]
    yield from (f"{key} stands since {at_s:.3f} s" for key, at_s in present.items())


def everything_ends_once_faults_stop(history: History) -> Problems:
    """I14."""
    if history.ran.settled_s == float("inf"):
        yield f"still waiting: {'; '.join(history.ran.waiting)}"
    for uid, state in history.final.items():
        if state["phase"] == "FAILED":
            yield f"{uid} {state['spec']['metadata']['name']} failed: {state['message']}"


def the_control_plane_alone_hurts_no_job(history: History) -> Problems:
    """I15."""
    kinds = {step.kind for step in history.ran.plan.steps}
    grows = any(job.most > job.least for job in history.ran.plan.jobs)
    if grows or not kinds & set(NEMESES) <= CONTROL_PLANE_ONLY or not kinds - set(NEMESES) <= HARMLESS:
        return
    for change in history.changes:
        for event in change.events:
            if event["type"] in _HARM and event["reason"] != "Expected":
                yield f"{_at(change)}: {event['type']}: {event['message']}"
        if change.after is not None and change.after["islands"][0]["generation"] > 1:
            yield f"{_at(change)}: generation {change.after['islands'][0]['generation']}"


def the_history_of_events_is_whole(history: History) -> Problems:
    """I16: numbers without a gap, nothing written over, and every change of phase explained where it happens."""
    newest: dict[str, int] = {}
    for written in history.ran.written:
        for event in written.events:
            if not event.key.startswith(keys.EVENTS) or event.current is None:
                continue
            uid = event.key.split("/")[-2]
            numbers = [one["revision"] for one in keys.decode(event.current.value)]
            first = newest.get(uid, 0) + 1
            if numbers != list(range(first, first + len(numbers))):
                yield f"revision {written.revision}: {event.key} has events {numbers}, the next one is {first}"
            newest[uid] = max(newest.get(uid, 0), *numbers)
    for change in history.changes:
        before, after = change.before, change.after
        if before is None or after is None or before["phase"] == after["phase"]:
            continue
        chain = [(e["fields"]["from"], e["fields"]["to"]) for e in change.events if "from" in e["fields"]]
        whole = chain and (chain[0][0], chain[-1][1]) == (before["phase"], after["phase"])
        if not whole or any(a[1] != b[0] for a, b in pairwise(chain)):
            yield f"{_at(change)}: {before['phase']} became {after['phase']}, events say {chain}"


def every_term_is_told_once(history: History) -> Problems:
    """The first thing that a leader writes about a job that was there before says who leads; nothing else does."""
    for change in history.changes:
        told = [number for number, event in enumerate(change.events) if event["type"] == "leader.changed"]
        if change.before is None or change.after is None:
            continue
        is_new = change.after["epoch"] != change.before["epoch"]
        if told != ([0] if is_new else []):
            epochs = f"epoch {change.after['epoch']} after {change.before['epoch']}"
            yield f"{_at(change)}: {epochs}, and a new leader is told at {told} of {len(change.events)} events"


def no_controller_has_a_bug(history: History) -> Problems:
    """Nothing fails that nobody expects, and no controller ends but for a reason."""
    yield from history.ran.bugs
    known = [*_EXPECTED_ENDS]
    if any(step.kind == "store_restored" for step in history.ran.plan.steps):
        known.append("OldStoreError")
    yield from (end for end in history.ran.ends if not any(one in end for one in known))


INVARIANTS: Mapping[str, Callable[[History], Problems]] = {
    "I1": terminal_phases_never_change,
    "I2": generations_only_rise,
    "I3": one_committed_generation_follows_another,
    "I4": no_slot_is_given_away_twice,
    "I5": islands_are_placed_whole,
    "marks": cordoned_nodes_get_no_new_work,
    "I6": checkpoints_only_go_forward,
    "I7": nobody_writes_under_a_newer_leader,
    "I8": every_request_has_one_effect,
    "I9": attempts_are_dense,
    "I10": budgets_are_kept,
    "I11": time_is_conserved,
    "I12": every_sample_counts_once,
    "I13": nothing_that_was_begun_is_left,
    "I14": everything_ends_once_faults_stop,
    "I15": the_control_plane_alone_hurts_no_job,
    "I16": the_history_of_events_is_whole,
    "terms": every_term_is_told_once,
    "forms": stored_forms_only_go_forward,
    "bugs": no_controller_has_a_bug,
}
_HARM = frozenset({"worker.exited", "worker.lost", "worker.condemned", "agent.lost", "recovery.started"})
_EXPECTED_ENDS = ("FencedError", "StoreUnavailableError", "NewerStoreError")


def violations(history: History) -> list[str]:
    """Everything that does not hold."""
    return [f"{name}: {problem}" for name, check in INVARIANTS.items() for problem in check(history)]


def _pairs(history: History) -> Iterator[tuple[Change, Json, Json]]:
    for change in history.changes:
        if change.before is not None and change.after is not None:
            yield change, change.before["islands"][0], change.after["islands"][0]


def _bound(state: Json | None) -> Counter[int]:
    slots = [slot for island in state["islands"] for slot in island["slots"]] if state is not None else []
    return Counter(slot["agentIncarnation"] for slot in slots if slot["agentIncarnation"])


def _newest(state: Json) -> int:
    return max((ref["step"] for ref in state["checkpoints"]), default=-1)


def _went_back(change: Change) -> bool:
    """Somebody asked for it, or the newest one cannot be read; the event says so."""
    given_up = {event["type"] for event in change.events} & {"job.rollback_requested", "checkpoint.rejected"}
    return bool(given_up) or _removed(change)


def _removed(change: Change) -> bool:
    """Somebody wanted a checkpoint of a job that has ended to go."""
    asked = any(event["type"] == "checkpoint.delete_requested" for event in change.events)
    return asked and change.before is not None and change.before["phase"] in ENDED


def _at(change: Change) -> str:
    return f"{change.at_s:.3f} s, revision {change.revision}, {change.name} {change.uid}"
