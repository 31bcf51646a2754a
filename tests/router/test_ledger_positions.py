"""Over Kafka a call moves from the router's own count to the pipeline's, and is never in neither."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmproto.kafka.topics import AS_OF_HEADER
from mmproto.v1.budget_pb2 import BudgetState, BudgetStates
from mmrouter.policy.ledger import Entry, Ledger, Place, Reflected, Who
from mmrouter.policy.states import TenantStates

TENANT = "t"
WHO = Who(TENANT, "", "", "", "")
PARTITIONS = 2
END = 1 << 60

Key = tuple[str, int]


@dataclass
class World:
    """Topic, worker and router, each step of theirs by itself: whatever order they come in may happen."""

    finished: dict[str, int] = field(default_factory=dict)
    spool: list[tuple[str, int]] = field(default_factory=list)
    topic: list[list[Key]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    reports: list[tuple[str, Place]] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)
    next_offset: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    under_way: list[tuple[int, bytes]] = field(default_factory=list)
    newest: tuple[int, bytes] | None = None
    now: int = 1000

    def __post_init__(self) -> None:
        self.read()
        self.start()

    def start(self) -> None:
        """The router starts: the newest state of the topic, its spool, and what the state does not have."""
        self.ledger, self.states = Ledger(must_fit=False), TenantStates({TENANT})
        for identity, cost in self.spool:
            self.ledger.add_pending(Entry(identity, 1, cost, WHO, None))
        self.under_way.clear()
        self.reports.clear()
        assert self.newest is not None
        self.hear(self.newest)
        positions = self.states.positions[TENANT]
        for partition, keys in enumerate(self.topic):
            for offset in range(positions.get(partition, 0), len(keys)):
                identity, cost = keys[offset]
                self.ledger.add_pending(Entry(identity, 1, cost, WHO, None))
                self.ledger.place(identity, Place(partition, offset))

    def call(self, cost: int) -> None:
        identity = f"own-{len(self.finished)}"
        self.finished[identity] = cost
        self.spool.append((identity, cost))
        self.ledger.add_pending(Entry(identity, 1, cost, WHO, None))

    def send(self, partition: int, forget: bool) -> None:
        """The oldest of the spool is appended; without `forget` it stays there and comes once more."""
        if self.spool:
            identity, cost = self.spool[0]
            self.reports.append((identity, self.append(partition, identity, cost)))
            if forget:
                self.spool.pop(0)

    def append(self, partition: int, identity: str, cost: int) -> Place:
        self.topic[partition].append((identity, cost))
        return Place(partition, len(self.topic[partition]) - 1)

    def double(self, partition: int) -> None:
        """A sensor beside the router saw its newest call, too."""
        if self.finished:
            identity = next(reversed(self.finished))
            self.append(partition, identity, self.finished[identity])

    def report(self) -> None:
        for identity, place in self.reports:
            self.ledger.place(identity, place)
        self.reports.clear()
        self.apply()

    def work(self, partition: int) -> None:
        if self.next_offset[partition] < len(self.topic[partition]):
            identity, cost = self.topic[partition][self.next_offset[partition]]
            self.charged.setdefault(identity, cost)
            self.next_offset[partition] += 1

    def read(self) -> None:
        """A worker reads a state; when it reaches the router is another matter."""
        self.now += 1
        budget = BudgetState(
            budget_id="b",
            period_start_unix_ns=0,
            period_end_unix_ns=END,
            limit_nano_usd=10**6,
            spent_nano_usd=sum(self.charged.values()),
            block_at_percent=100,
        )
        state = BudgetStates(
            tenant=TENANT,
            as_of_unix_ns=self.now,
            budgets=[budget],
            positions=dict(enumerate(self.next_offset)),
        )
        self.newest = self.now, state.SerializeToString()
        self.under_way.append(self.newest)

    def hear(self, state: tuple[int, bytes]) -> None:
        as_of, value = state
        self.states.take(TENANT.encode(), value, {AS_OF_HEADER: str(as_of).encode()})
        self.apply()

    def apply(self) -> None:
        self.ledger.apply(self.states.budgets, Reflected(positions=self.states.positions))

    @property
    def used(self) -> int:
        return self.ledger.accounts["b"].used


PARTITION = st.integers(0, PARTITIONS - 1)
STEPS = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 50)),
    st.tuples(st.just("send"), PARTITION, st.booleans()),
    st.tuples(st.just("double"), PARTITION),
    st.tuples(st.just("foreign"), PARTITION, st.integers(1, 50)),
    st.tuples(st.just("report")),
    st.tuples(st.just("work"), PARTITION),
    st.tuples(st.just("read")),
    st.tuples(st.just("hear"), st.integers(0, 3)),
    st.tuples(st.just("restart")),
)


# A state that was read before a call was charged comes after the one that has it.
OVERTAKEN = [
    ("read",),
    ("call", 5),
    ("send", 0, True),
    ("report",),
    ("work", 0),
    ("read",),
    ("hear", 1),
    ("hear", 0),
]


@settings(max_examples=300, deadline=None)
@example(OVERTAKEN)
@given(st.lists(STEPS, max_size=60))
def test_a_call_is_never_in_no_count_and_in_the_end_in_one(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    world = World()
    for number, (step, *arguments) in enumerate(steps):
        match step:
            case "foreign":
                world.append(arguments[0], f"foreign-{number}", arguments[1])
            case "hear":
                if world.under_way:
                    world.hear(world.under_way.pop(arguments[0] % len(world.under_way)))
            case "restart":
                world.start()
            case _:
                getattr(world, step)(*arguments)
        assert world.used >= sum(world.finished.values())
    while world.spool:
        world.send(0, forget=True)
    world.report()
    for partition in range(PARTITIONS):
        while world.next_offset[partition] < len(world.topic[partition]):
            world.work(partition)
    world.read()
    assert world.newest is not None
    world.hear(world.newest)
    assert world.used == sum(world.charged.values())
    assert world.ledger.pending_calls == 0


def test_a_message_that_is_no_state_changes_nothing() -> None:
    world = World()
    world.call(7)
    good = world.newest
    assert good is not None
    state = BudgetStates.FromString(good[1])
    cases: list[tuple[bytes, bytes, dict[str, bytes]]] = [
        (b"t", b"\xff", {}),
        (b"\xff", b"", {}),
        (b"other", good[1], {AS_OF_HEADER: b"soon"}),
        (b"t", BudgetStates(tenant="other", as_of_unix_ns=10**6).SerializeToString(), {}),
        (b"t", _with(state, budget_id=""), {}),
        (b"t", _with(state, limit_nano_usd=-1), {}),
        (b"t", _with(state, block_at_percent=0), {}),
        (b"t", _with(state, period_end_unix_ns=0), {}),
    ]
    for key, value, headers in cases:
        try:
            world.states.take(key, value, headers)
        except ValueError:
            pass
        else:
            raise AssertionError(f"{key!r} was taken")
        world.apply()
        assert world.used == 7
    # What a later version may add is no fault.
    unknown = state.SerializeToString() + b"\xf2\x3f\x03new"
    assert world.states.take(b"t", unknown, {})
    world.apply()
    assert world.used == 7


def _with(state: BudgetStates, **values: int | str) -> bytes:
    changed = BudgetStates()
    changed.CopyFrom(state)
    changed.as_of_unix_ns += 1
    for name, value in values.items():
        setattr(changed.budgets[0], name, value)
    return changed.SerializeToString()
