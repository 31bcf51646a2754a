"""What the kernel lets us do: lockdown, bpf(2), perf events, and the kinds of links it has."""

from __future__ import annotations

import errno
import os

from mmsensor.capture.discovery.files import FileWatch
from mmsensor.capture.errors import CaptureForbidden, CaptureUnavailable
from mmsensor.capture.kernel import privileges, syscalls
from mmsensor.capture.kernel.confinement import lockdown, why_refused
from mmsensor.capture.kernel.syscalls import TRACE_UPROBE_MULTI, TRACE_UPROBE_SESSION
from mmsensor.doctor.findings import AS_ROOT, Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings


def check_lockdown(place: Surroundings) -> Finding:
    mode = lockdown(place.sys / "kernel" / "security")
    if mode is None:
        return ok("the kernel has no lockdown, or securityfs is not mounted")
    if mode == "confidentiality":
        return fail(
            "lockdown is in confidentiality mode: no program may read memory", "boot with lockdown=integrity"
        )
    return ok(f"lockdown is {mode}, which the probes do not mind")


def check_bpf(place: Surroundings) -> Finding:
    """Loads a program of two instructions, which shows what rights alone do not: seccomp, user namespaces."""
    if place.missing_to_load:
        sysctl = place.number("kernel/unprivileged_bpf_disabled")
        shown = "" if sysctl is None else f"; kernel.unprivileged_bpf_disabled = {sysctl} only binds others"
        return skipped(f"not asked: {place.missing_to_load} missing{shown}", AS_ROOT)
    try:
        syscalls.knows_uprobe_link(TRACE_UPROBE_MULTI)
    except OSError as error:
        return _refused("bpf(2)", error)
    return ok("bpf(2) loads programs")


def check_discovery(place: Surroundings) -> Finding:
    """Which source of hints the kernel has, in the order in which the sensor tries them."""
    if place.missing_to_load:
        paranoid = place.number("kernel/perf_event_paranoid")
        shown = "" if paranoid is None else f"; kernel.perf_event_paranoid = {paranoid} only binds others"
        return skipped(f"not asked: {place.missing_to_load} missing{shown}", AS_ROOT)
    try:
        FileWatch().close()
    except (OSError, CaptureUnavailable):
        return _perf_hints()
    return ok("the kernel tells of files that run for the first time")


def _perf_hints() -> Finding:
    try:
        os.close(syscalls.open_mapping_events(0))
    except OSError as error:
        refused = _refused("perf_event_open(2)", error)
        return warn(f"new TLS libraries are found by looking every 2 s: {refused.fact}", refused.fix)
    return ok("perf events tell of every new mapping; of new files alone the kernel tells since Linux 6.1")


def _refused(call: str, error: OSError) -> Finding:
    name = errno.errorcode.get(error.errno or 0, "?")
    if error.errno in (errno.EPERM, errno.EACCES):
        why = why_refused()
        return fail(f"{call} is refused ({name}): {why.reason}", why.hint)
    return fail(
        f"{call} fails ({name}: {error.strerror})",
        "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_UPROBES and CONFIG_PERF_EVENTS",
    )


def check_links(place: Surroundings) -> Finding:
    """The kinds of links, asked of the kernel where we may, read from its type information otherwise."""
    if place.missing_to_load:
        return _links_by_btf(place)
    try:
        if syscalls.knows_uprobe_link(TRACE_UPROBE_SESSION):
            return ok("uprobe_session: entry and return of a function in one link")
        if syscalls.knows_uprobe_link(TRACE_UPROBE_MULTI):
            return ok("uprobe_multi: all probes of a program in one link")
    except OSError:
        return _links_by_btf(place)
    return _perf_uprobes(place)


def _links_by_btf(place: Surroundings) -> Finding:
    if not place.types:
        return skipped("not asked for want of rights, and no type information to read", AS_ROOT)
    if place.lacks_multi_links:
        return _perf_uprobes(place)
    session = b"\0BPF_TRACE_UPROBE_SESSION\0" in place.types
    return ok(f"{'uprobe_session' if session else 'uprobe_multi'}, by the kernel's type information")


def _perf_uprobes(place: Surroundings) -> Finding:
    """The last resort. Which right it takes differs within one version, so the kernel is asked."""
    pmu = place.sys / "bus" / "event_source" / "devices" / "uprobe" / "type"
    if not pmu.is_file():
        return fail(
            "neither uprobe_multi links nor uprobe perf events", "use a kernel with CONFIG_UPROBE_EVENTS=y"
        )
    fact = "perf events, one for every probe: no uprobe_multi links before Linux 6.6"
    if place.missing_to_load:
        return ok(f"{fact}, by the kernel's type information")
    try:
        privileges.require_perf_uprobes(int(pmu.read_text()))
    except CaptureForbidden as error:
        return fail(
            f"{fact}; {error.reason}",
            "grant it as systemd/sensor-before-linux-6.6.conf does, or use Linux 6.6 or newer",
        )
    return ok(fact)
