"""Documents for people: the tables that `mmsensor` prints. JSON and YAML are the documents themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
#: One long cell does not move the next column of all rows out of sight.
_WIDEST = 80


def status_text(document: Mapping[str, Any]) -> str:
    """The status as sections of `name  value` lines."""
    identity, events, sink = document["identity"], document["events"], document["sink"]
    kernel, connections, overhead = document["kernel"], document["connections"], document["overhead"]
    lines = [f"verdict      {document['verdict']}"]
    lines += [f"             - {reason}" for reason in document["reasons"]]
    lines += [
        (
            f"node         {identity['node']}, version {identity['version']}, pid {identity['pid']}, "
            f"since {identity['started_at']}"
        ),
        f"state        {identity['state_dir']}",
        f"metrics      {identity['metrics_url'] or 'off'}",
        f"events       captured {events['captured']} = emitted {events['emitted']} "
        f"+ dropped {sum(events['dropped'].values())} + failed {sum(events['failed'].values())}"
        + ("" if events["balanced"] else "  DOES NOT BALANCE"),
        *_reasons("dropped", events["dropped"]),
        *_reasons("failed", events["failed"]),
        *_reasons("noted", document["anomalies"]),
        f"in flight    {document['in_flight']['open']} open, {document['in_flight']['queued']} queued",
        f"connections  {connections['followed']} followed; "
        + ", ".join(f"{count} {name}" for name, count in connections["total"].items()),
        (
            f"kernel       {kernel['records']} records, {size(kernel['bytes'])}, "
            f"{kernel['calls']} TLS calls, linked by {kernel['link_kind'] or '-'}, "
            f"loaded by {kernel['loader'] or '-'}"
        ),
        *_reasons("lost", {name: count for name, count in kernel["lost"].items() if count}),
        *_hold_lines(kernel["holds"]),
        f"gaps         {connections['gaps']} with {size(connections['gap_bytes'])}",
        f"sink         {sink['kind']} {sink['target']}" + (f": {sink['problem']}" if sink["problem"] else ""),
        *_sink_lines(sink),
        f"overhead     {size(overhead['resident_bytes'])} resident, {overhead['cpu_seconds']} s of CPU",
        *_reasons("errors", document["errors"]),
        "",
        targets_text(document["targets"]),
    ]
    return "\n".join(lines)


def _hold_lines(holds: Mapping[str, Any] | None) -> list[str]:
    if not holds:
        return []
    ended = holds["let_go"]
    mean_ms = holds["total_s"] / ended * 1000 if ended else 0.0
    longest_ms = holds["longest_s"] * 1000
    return [
        (
            f"holds        {holds['held']} processes, {mean_ms:.1f} ms on average, {longest_ms:.1f} at most; "
            f"{holds['too_long']} for as long as allowed"
        ),
        *_reasons("not held", {name: count for name, count in holds["not_held"].items() if count}),
    ]


def targets_text(targets: Sequence[Mapping[str, Any]]) -> str:
    """One line a file: attached, and how its functions were found, or why not."""
    if not targets:
        return "no running process maps a TLS library that is known"
    rows = [("STATE", "PROCESSES", "FILE", "WHY")]
    for target in targets:
        state = "attached" if target["attached"] else "not attached"
        why = "; ".join(filter(None, (target["reason"], target["why"], target["doubt"])))
        rows.append((state, str(target["processes"]), target["path"], why))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` with their columns aligned; a cell is one line, whatever is in it."""
    rows = [[_legible(cell) for cell in row] for row in rows]
    widths = [min(max(len(row[column]) for row in rows), _WIDEST) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def legible(text: str) -> str:
    """`text` for a terminal. Names of files come from outside, and a terminal obeys what it is sent: all but
    newlines that cannot be printed is written as Python does it (`\\x1b`)."""
    return "\n".join(map(_legible, text.split("\n")))


def _legible(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def size(number: float) -> str:
    """Bytes in binary units: `512 B`, `1.5 MiB`."""
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _sink_lines(sink: Mapping[str, Any]) -> list[str]:
    if "spool" not in sink:
        return [f"             {sink['written']} calls written"]
    spool, delivery = sink["spool"], sink["delivery"]
    lines = [
        (
            f"spool        {spool['records']} waiting, "
            f"{size(spool['payload_bytes'])} of {size(spool['max_bytes'])}"
        ),
        (
            f"delivered    {delivery['delivered']} ({delivery['duplicates']} were known already), "
            f"last {delivery['last_success_at'] or 'never'}"
        ),
    ]
    if delivery["failures_in_a_row"]:
        lines.append(
            f"             {delivery['failures_in_a_row']} failures in a row: {delivery['last_error']}"
        )
    return lines + _reasons("rejected", delivery["rejected"])


def _reasons(title: str, reasons: Mapping[str, int]) -> list[str]:
    return [f"  {title:<11}{reason}: {count}" for reason, count in sorted(reasons.items())]
