"""Which kernels are tried, and what must hold on each. Data: a further kernel is a row."""

from __future__ import annotations

from dataclasses import dataclass

from mmsensor.capture.options import LinkKind

_LOADING = (
    "tests/kernels/guest.py::test_it_has_the_links_of_its_version",
    "tests/kernels/guest.py::test_calls_of_every_size_without_bpf_loop",
    "tests/kernels/guest.py::test_a_kernel_without_btf_is_refused_in_one_line",
)

#: Of the capture tests those that lean on the kernel in a way of their own; `{kind}` becomes every kind of
#: link that the kernel has, `{best}` the first. Each runs in seconds on an emulated processor.
_CAPTURE = (
    "tests/sensor/capture/test_completeness.py::test_every_size_both_directions[{kind}]",
    "tests/sensor/capture/test_completeness.py::test_refused_writes_count_once",
    "tests/sensor/capture/test_uretprobe.py::test_this_kernel_spares_sandboxes",
    "tests/sensor/capture/test_loss.py::test_captured_and_lost_is_sent[sizes0-65536]",
    "tests/sensor/capture/test_loss.py::test_captured_bytes_stand_at_their_place",
    "tests/sensor/capture/test_odd_calls.py::test_lies_are_counted_and_harm_nothing",
    "tests/sensor/capture/test_life.py::test_a_process_started_later_is_seen_from_its_first_byte",
    "tests/sensor/capture/test_life.py::test_a_library_never_seen_before_is_found",
    "tests/sensor/capture/test_life.py::test_a_verdict_stops_the_copying",
    "tests/sensor/capture/test_life.py::test_a_killed_sensor_leaves_nothing_attached[{best}]",
    "tests/sensor/capture/discovery/test_files.py::test_a_library_is_told_of_with_its_process",
    "tests/sensor/capture/discovery/test_files.py::test_mounts_do_not_hide_which_file_it_is",
    "tests/sensor/capture/discovery/test_mounts.py::test_one_file_through_two_mounts_is_one_target[overlay]",
)

_PERF_EVENTS = (
    "tests/sensor/capture/test_privileges.py::test_probes_on_perf_events_ask_for_what_the_kernel_asks_for",
)

_REFUSED = ("tests/kernels/guest.py::test_a_kernel_that_is_too_old_is_refused_in_one_line",)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A series of Debian's kernels; the newest of it in `suite` is taken. `links`: the kinds it must have.

    `may_be_absent`: an archive drops old releases, and what is only shown to be refused need not be tried.
    """

    series: str
    suite: str
    links: tuple[LinkKind, ...]
    tests: tuple[str, ...]
    may_be_absent: bool = False

    def selection(self) -> list[str]:
        """The tests for pytest's command line."""
        chosen: dict[str, None] = {}
        best = self.links[0] if self.links else ""
        for test in self.tests:
            named = test.replace("{best}", best)
            chosen.update((named.replace("{kind}", kind), None) for kind in self.links or ("",))
        return list(chosen)


MATRIX = (
    Kernel("6.12", "bookworm-backports", (LinkKind.UPROBE_MULTI, LinkKind.PERF_EVENT), _LOADING + _CAPTURE),
    Kernel("6.1", "bookworm", (LinkKind.PERF_EVENT,), _LOADING + _CAPTURE + _PERF_EVENTS),
    Kernel("5.10", "bullseye", (), _REFUSED, may_be_absent=True),
)
