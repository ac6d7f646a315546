"""Invariants of the state: what must hold between any two steps.

Asserted after every step in tests and simulation. Nothing here changes anything; what it finds is a
bug of the core, never of a peer.
"""

from collections import Counter

from xorbit.core.scope import subnet_of
from xorbit.core.serve import RelayWork
from xorbit.core.state import Link, State

WORKS_PER_CONNECTION_MAX = 4
"""How many works besides those of users and peers there may be: pings, looks, checks of fingers."""
WORKS_OF_ITS_OWN_MAX = 64


def check(state: State) -> None:
    """Hold a state against everything it promises.

    Raises:
        AssertionError: which promise is broken.
    """
    _check_step_is_over(state)
    for link in state.links.values():
        _check_link(state, link)
    _check_names(state)
    _check_works(state)
    _check_follows(state)
    _check_timers(state)
    _check_limits(state)


def _promise(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)


def _check_step_is_over(state: State) -> None:
    _promise(not state.effects, "effects are handed out with their step")
    _promise(not state.deliveries, "works are told everything within the step")


def _check_link(state: State, link: Link) -> None:
    workers = state.limits.workers
    _promise(len(link.out_workers) <= workers, "no connection has more than N out-workers")
    # Held, not refused: a peer may have sent a little more before it was no longer read from.
    _promise(len(link.in_workers) <= workers, "no connection has more than N in-workers")
    full = len(link.out_workers) == workers or link.closing
    _promise(full or not link.waiting, "requests wait only while all out-workers are busy")
    armed = ("link", link.guid) in state.timers
    _promise(armed or not link.out_workers, "every request in flight has a deadline")
    in_time = all(link.deadline <= worker.deadline for worker in link.out_workers.values())
    _promise(in_time, "a connection is looked at by the earliest deadline of its requests")
    waiting_max = state.limits.waiting_requests_max
    _promise(len(link.waiting) <= waiting_max, "requests that wait are bounded")
    _promise(link.peer != state.own, "a node is never connected to itself")


def _check_names(state: State) -> None:
    for peer, connection in state.link_of.items():
        link = state.links.get(connection)
        _promise(link is not None and link.peer == peer, "link_of names a link of that peer")
        _promise(link is None or not link.closing, "a closing link is not used for requests")
    for peer, dial in state.dial_of.items():
        dialling = state.dials.get(dial)
        _promise(dialling is not None and dialling.expected == peer, "dial_of names its dial")
    for dial in state.dials_waiting:
        _promise(dial in state.dials, "a waiting dial is a dial")
    subnets = (subnet_of(link.address.host) for link in state.links.values())
    counted = Counter(subnet for subnet in subnets if subnet is not None)
    _promise(state.crowds == counted, "each public subnet counts its connections")
    usable = {link.peer for link in state.links.values() if not link.closing}
    _promise(usable == set(state.link_of), "every connected peer can be asked")


def _check_works(state: State) -> None:
    for guid, work in state.works.items():
        _promise(guid == work.guid, "a work is addressed by its guid")
        _promise(("work", guid) in state.timers, "every work in progress has a deadline")
    _promise(not (state.stopped and not state.stopping), "only a stopping node has stopped")


def _check_follows(state: State) -> None:
    leases, limits = state.leases, state.limits
    _promise(len(leases) <= limits.followers_max, "followers are bounded")
    for peer in leases.peers():
        few = leases.count_of(peer) <= limits.followers_per_peer_max
        _promise(few, "no peer has more than its share of the followers")
        for lease in leases.of_peer(peer):
            link = state.links.get(lease.connection)
            _promise(link is not None and link.peer == peer, "a follower has a connection")
    waited_for = ("push", None) in state.timers
    _promise(waited_for or not state.telling, "what waits to be pushed has a time")
    for work, pushers in state.pushers.items():
        _promise(work in state.works, "who pushes does so to a work in progress")
        connections = {pusher.connection for pusher in pushers.values()}
        _promise(connections <= set(state.links), "who pushes is connected")
        _promise(len(connections) == len(pushers), "a connection pushes once to a work")


def _check_timers(state: State) -> None:
    """What a node does now and then it never stops doing."""
    _promise(("maintenance", None) in state.timers, "maintenance comes again")
    looks = not state.joined or ("look", None) in state.timers
    _promise(looks, "who has joined looks around again")


def _check_limits(state: State) -> None:
    limits = state.limits
    links = sum(not link.closing for link in state.links.values())
    _promise(links <= limits.connections_max, "connections are bounded")
    own = WORKS_PER_CONNECTION_MAX * limits.connections_max + WORKS_OF_ITS_OWN_MAX
    _promise(len(state.works) <= limits.works_max + own, "works are bounded")
    relays = sum(isinstance(work, RelayWork) for work in state.works.values())
    _promise(state.relays == relays, "relays are counted")
    _promise(len(state.heard) <= limits.heard_max, "hearsay is bounded")
    _promise(state.table.newcomers <= limits.newcomers_max, "newcomers are bounded")
    waiting = max((len(dial.waiting) for dial in state.dials.values()), default=0)
    _promise(waiting <= limits.waiting_requests_max, "requests that wait for a dial are bounded")
    _promise(len(state.table) <= limits.contacts_max, "the table keeps to its budget")
    _promise(state.own not in state.table, "a node is no contact of its own")
    _promise(len(state.knowns) <= limits.knowns_max, "knowns are bounded")
    _promise(len(state.possibles) <= limits.possibles_max, "possibles are bounded")
    _promise(set(state.dial_backs) <= set(state.possibles), "only possibles are dialled back")
    _promise(0 <= state.relays <= limits.relays_max, "relays are bounded")
    upkeep = state.upkeep
    noted = max(map(len, (upkeep.changed, upkeep.left, upkeep.lost)))
    _promise(noted <= limits.concerned_max, "who came and went is bounded")
    under_way = len(state.dials) - len(state.dials_waiting)
    _promise(under_way <= limits.dials_max, "dials under way are bounded")
    _promise(len(state.dials_waiting) <= limits.dials_waiting_max, "waiting dials are bounded")
