"""What can go wrong, by name, with its number in the list of faults (control-plane reference 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from simulation.controllers import LATER
from simulation.plan import Step
from trainctl.controller import keys
from trainctl.controller.migrations import MIGRATIONS

if TYPE_CHECKING:
    from simulation.controllers import ControllerHost
    from simulation.world import World
    from trainctl.controller.migrations import Migration

Act = Callable[["World", Step], None]
POINTS = ("controller.before_txn", "controller.after_txn")


def crash_controller(world: World, step: Step) -> None:
    """F1: SIGKILL; started again after a while."""
    host = world.host(step.who)
    host.kill()
    world.later(step.for_s, host.start)


def crash_leader(world: World, step: Step) -> None:
    """F1: SIGKILL of whoever leads."""
    host = world.leader()
    host.kill()
    world.later(step.for_s, host.start)


def crash_leader_in_commit(world: World, step: Step) -> None:
    """F1: dies right before or right after a transaction of a job."""
    host = world.leader()
    host.arm(POINTS[step.who % 2], step.count - 1)
    world.later(step.for_s, host.start)
    world.later(step.for_s + 5.0, host.start)


def end_leader(world: World, step: Step) -> None:
    """SIGTERM: it gives the leadership up and is started again."""
    world.leader().end()


def pause_controller(world: World, step: Step) -> None:
    """F2: SIGSTOP, and SIGCONT after a while: as an ex-leader, if somebody took over."""
    host = world.leader() if step.who % 2 else world.host(step.who)
    process = host.process
    process.freeze()
    world.later(step.for_s, process.thaw)


def slow_loop(world: World, step: Step) -> None:
    """F4: the leader stands still again and again."""
    process = world.leader().process
    for number in range(step.count):
        world.later(number * 2 * step.for_s, process.freeze)
        world.later((number * 2 + 1) * step.for_s, process.thaw)


def rolling_upgrade(world: World, step: Step) -> None:
    """F5: all controllers are ended in turn, or killed, and started again in a later version."""
    for number in range(len(world.hosts)):
        world.later(number * step.for_s, lambda number=number: _release(world.host(step.who + number), step, LATER))  # type: ignore[misc]


def rolled_back(world: World, step: Step) -> None:
    """F5: a controller is started again in the older version, though a later one may lead, and upgraded after all."""
    host = world.host(step.who)
    former = host.release
    _release(host, step, MIGRATIONS)
    world.later(step.for_s, lambda: _release(host, step, former))


def _release(host: ControllerHost, step: Step, release: tuple[Migration, ...]) -> None:
    host.release = release
    if step.count == 1:
        host.kill()
        host.start()
    else:
        host.end()


def failover_storm(world: World, step: Step) -> None:
    """F6: the leader is killed every few seconds."""
    for number in range(2 * step.count):
        world.later(3.0 * number, lambda: crash_leader(world, step))


def store_away(world: World, step: Step) -> None:
    """F7: nobody reaches the store."""
    _links(world, "cut", True)
    world.later(step.for_s, lambda: _links(world, "cut", False))


def store_cut_off(world: World, step: Step) -> None:
    """F7: one controller does not reach the store."""
    link = world.host(step.who).link
    link.cut = True
    world.later(step.for_s, lambda: setattr(link, "cut", False))


def unknown_not_applied(world: World, step: Step) -> None:
    """F8: writes of the leader get lost; it cannot tell."""
    world.leader().link.lose_requests += step.count


def unknown_applied(world: World, step: Step) -> None:
    """F8: writes of the leader are carried out; it cannot tell."""
    world.leader().link.lose_answers += step.count


def unknown_late(world: World, step: Step) -> None:
    """F8: writes of the leader are carried out when it has given them up."""
    world.leader().link.late += 1


def slow_store(world: World, step: Step) -> None:
    """The store takes its time."""
    _links(world, "delay_s", 0.15 * step.count)
    world.later(step.for_s, lambda: _links(world, "delay_s", 0.0005))


def watch_delayed(world: World, step: Step) -> None:
    """F9: changes are told late."""
    _links(world, "watch_delay_s", 2.0 * step.count)
    world.later(step.for_s, lambda: _links(world, "watch_delay_s", 0.0))


def compaction(world: World, step: Step) -> None:
    """F9: history is gone, and with it every watch that is behind."""
    world.store.compact(world.store.revision)


def lease_gone(world: World, step: Step) -> None:
    """F3, F10: the leader's lease runs out although it lives; another one leads beside it."""
    lease = world.store.lease_of(keys.LEADER)
    if lease:
        world.store.lease_revoke(lease)


def store_full(world: World, step: Step) -> None:
    """F11: nothing can be written."""
    world.store.full = True
    world.later(step.for_s, lambda: setattr(world.store, "full", False))


def store_restored(world: World, step: Step) -> None:
    """F12: an older copy takes the store's place, and agents have seen more; after a while somebody mends it."""
    if world.restore(10.0 * step.count):
        world.later(step.for_s - 1.0, world.look)
        world.later(step.for_s, lambda: world.mend(accept=bool(step.who % 2)))


def crash_agent(world: World, step: Step) -> None:
    """F13: the agent dies, and its workers; it is started again."""
    node = world.node(step.who)
    node.crash()
    world.later(step.for_s, node.start)


def crash_worker(world: World, step: Step) -> None:
    """F14: some ranks of a job die."""
    for worker in world.workers(step.who, step.count):
        worker.end(-9, world.now_s)


def crash_all_ranks(world: World, step: Step) -> None:
    """F14: all ranks of a job die at once."""
    for worker in world.workers(step.who, 1000):
        worker.end(-9, world.now_s)


def hang_worker(world: World, step: Step) -> None:
    """F24: a rank does nothing any more."""
    for worker in world.workers(step.who, 1):
        if worker.frozen_since_s < 0:
            worker.frozen_since_s = world.now_s


def power_loss(world: World, step: Step) -> None:
    """F15: a machine is gone, and nobody is told; it comes back."""
    node = world.node(step.who)
    node.power_off()
    world.later(step.for_s, node.start)


def freeze_node(world: World, step: Step) -> None:
    """F16: a machine stands still, and goes on."""
    life = world.node(step.who).life
    if life is not None:
        life.process.freeze()
        world.later(step.for_s, life.process.thaw)


def lost_upwards(world: World, step: Step) -> None:
    """F17: what an agent says is lost, what it is told is not."""
    node = world.node(step.who)
    for host in world.hosts:
        world.network.stall(node.name, host.name)
    world.later(step.for_s, node.open)


def lost_downwards(world: World, step: Step) -> None:
    """F17: what an agent is told is lost, what it says is not."""
    node = world.node(step.who)
    for host in world.hosts:
        world.network.stall(host.name, node.name)
    world.later(step.for_s, node.open)


def agent_cut_from_leader(world: World, step: Step) -> None:
    """F17: an agent and the leader do not reach each other; others do."""
    node, host = world.node(step.who), world.leader()
    for pair in ((node.name, host.name), (host.name, node.name)):
        world.network.stall(*pair)
    world.later(step.for_s, node.open)


def leader_deaf(world: World, step: Step) -> None:
    """F17: the leader and all agents do not reach each other; the store is not affected."""
    host = world.leader()
    pairs = [pair for node in world.nodes for pair in ((node.name, host.name), (host.name, node.name))]
    for pair in pairs:
        world.network.stall(*pair)

    def open_again() -> None:
        for pair in pairs:
            world.network.flow(*pair)

    world.later(step.for_s, open_again)


def slow_network(world: World, step: Step) -> None:
    """F18: everything takes half a second and more each way."""
    world.network.slow(0.3 * step.count)
    world.later(step.for_s, lambda: world.network.slow(0.0))


def connections_reset(world: World, step: Step) -> None:
    """F19: all connections break; what was not acknowledged is sent again."""
    world.network.reset()


def report_flood(world: World, step: Step) -> None:
    """F20: an agent says the same thing hundreds of times."""
    life = world.node(step.who).life
    if life is not None:
        life.flood(100 * step.count)


def mass_failure(world: World, step: Step) -> None:
    """F22: a tenth, or half of all nodes at once."""
    share = (0.1, 0.5, 0.5)[step.count - 1]
    for number in range(max(1, round(share * len(world.nodes)))):
        node = world.node(step.who + number)
        node.crash()
        world.later(step.for_s + 0.1 * number, node.start)


def flapping_node(world: World, step: Step) -> None:
    """F23: a node dies, comes back and dies again."""
    node = world.node(step.who)
    for number in range(1 + step.count):
        world.later(8.0 * number, node.crash)
        world.later(8.0 * number + 2.0, node.start)


NEMESES: Mapping[str, tuple[Act, float, float]] = {
    "crash_controller": (crash_controller, 0.5, 15.0),
    "crash_leader": (crash_leader, 0.5, 15.0),
    "crash_leader_in_commit": (crash_leader_in_commit, 0.5, 5.0),
    "end_leader": (end_leader, 0.0, 0.0),
    "pause_controller": (pause_controller, 0.5, 60.0),
    "slow_loop": (slow_loop, 0.2, 5.0),
    "failover_storm": (failover_storm, 0.5, 3.0),
    "rolling_upgrade": (rolling_upgrade, 0.5, 20.0),
    "rolled_back": (rolled_back, 1.0, 20.0),
    "store_away": (store_away, 1.0, 40.0),
    "store_cut_off": (store_cut_off, 1.0, 40.0),
    "unknown_not_applied": (unknown_not_applied, 0.0, 0.0),
    "unknown_applied": (unknown_applied, 0.0, 0.0),
    "unknown_late": (unknown_late, 0.0, 0.0),
    "slow_store": (slow_store, 1.0, 20.0),
    "watch_delayed": (watch_delayed, 1.0, 20.0),
    "compaction": (compaction, 0.0, 0.0),
    "lease_gone": (lease_gone, 0.0, 0.0),
    "store_full": (store_full, 1.0, 20.0),
    "store_restored": (store_restored, 2.0, 30.0),
    "crash_agent": (crash_agent, 0.5, 20.0),
    "crash_worker": (crash_worker, 0.0, 0.0),
    "crash_all_ranks": (crash_all_ranks, 0.0, 0.0),
    "hang_worker": (hang_worker, 0.0, 0.0),
    "power_loss": (power_loss, 1.0, 40.0),
    "freeze_node": (freeze_node, 1.0, 40.0),
    "lost_upwards": (lost_upwards, 1.0, 40.0),
    "lost_downwards": (lost_downwards, 1.0, 40.0),
    "agent_cut_from_leader": (agent_cut_from_leader, 1.0, 40.0),
    "leader_deaf": (leader_deaf, 1.0, 40.0),
    "slow_network": (slow_network, 2.0, 20.0),
    "connections_reset": (connections_reset, 0.0, 0.0),
    "report_flood": (report_flood, 0.0, 0.0),
    "mass_failure": (mass_failure, 0.5, 10.0),
    "flapping_node": (flapping_node, 0.0, 0.0),
}
"""Each with its shortest and longest duration, seconds; 0: it has none."""

SCENARIOS_ONLY = frozenset({"store_restored"})
"""Never drawn. Members that were asked to prepare a generation that an older copy does not know ignore the one that it
knows: only the time-outs of their collectives end that, which simulated workers do not have."""

CONTROL_PLANE_ONLY = frozenset(
    {
        "crash_controller", "crash_leader", "crash_leader_in_commit", "end_leader", "pause_controller", "slow_loop",
        "failover_storm", "store_away", "store_cut_off", "unknown_not_applied", "unknown_applied", "unknown_late",
        "slow_store", "watch_delayed", "compaction", "lease_gone", "store_full", "connections_reset", "report_flood",
        "rolling_upgrade", "rolled_back",
        "leader_deaf",
    }
)  # fmt: skip
"""Nemeses that hurt no node, agent or worker: no generation may change because of them (I15)."""


def _links(world: World, name: str, value: float) -> None:
    for host in world.hosts:
        setattr(host.link, name, value)


def durations(only: frozenset[str] | None = None) -> dict[str, tuple[float, float]]:
    """What ``plan.draw`` draws from."""
    wanted = NEMESES.keys() - SCENARIOS_ONLY if only is None else only
    return {name: (low, high) for name, (_, low, high) in NEMESES.items() if name in wanted}
