"""How far the estimates are off: `python -m tests.estimation_error DIR` writes the table of the documents.

Every recorded exchange below DIR whose provider reported its tokens is estimated as if it had not, and the
two are compared. Estimates go by the characters, as after an abort; the last lines are OpenAI's models by
their tokenizer, as for a stream of which it is foreseen that no usage will come.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mmproto import usage
from mmproto.estimation import tokenizer
from mmproto.estimation.estimate import Estimate
from mmproto.estimation.families import family_of
from mmproto.exchange import Exchange, ReadingRules, Recognised, RequestHead, ResponseHead
from mmproto.providers.facts import Facts, Measured
from mmproto.score.record import Record, UnreadableRecord, read_folder

HEADER = (
    "| Provider | Side | n | Median error | 95th percentile | Bias |",
    "|---|---|---:|---:|---:|---:|",
)
OTHERS = "all others"
TOKENIZED = "OpenAI's models, by tokenizer"
# Providers with fewer numbers than this share a line.
FEW = 10
# Below this a relative error says nothing: 1 token off 3 is 33 %.
LEAST = 20


class Unreported(Estimate):
    """An estimate that is asked although the provider told its numbers."""

    guess: Measured | None = None
    tokenized: bool = False

    def request_end(self, facts: Facts, document: Mapping[str, Any]) -> None:
        """By the tokenizer where that is asked for and there is one for the model."""
        if self.tokenized and family_of(facts.request_model).has_tokenizer:
            self._tokenizer = tokenizer.load()
        if self._request is not None:
            self._request.end(self._tokenizer)

    def complete(self, measured: Measured, facts, *, ended, lengths=(0, 0)):  # type: ignore[no-untyped-def]
        """Notes the estimate and leaves the reported numbers as they are."""
        self.guess = super().complete(Measured(), facts, ended=ended, lengths=lengths)
        return measured


def errors(record: Record, *, tokenized: bool = False) -> Iterator[tuple[str, float]]:
    """(side, relative error) of a record; none where nothing comparable was reported."""
    head = RequestHead(record.method, record.target, (("host", record.host), *record.request_headers))
    exchange = Exchange(head, ReadingRules(), record.name, 0)
    dialect = exchange._dialect
    if dialect is None or exchange._estimate is None or record.messages or record.is_grpc:
        return
    estimate = Unreported(type(dialect).__name__, dialect.operation, exchange.provider or "")
    estimate.tokenized = tokenized
    exchange._estimate = estimate
    exchange.request_body(record.request_body, 0)
    exchange.request_end(0)
    plain = tuple(
        (name, value) for name, value in record.response_headers if name not in ("content-encoding",)
    )
    exchange.response_head(ResponseHead(record.status, plain), 0)
    exchange.response_body(record.response_body, 0)
    outcome = exchange.end(0)
    guess = estimate.guess
    if tokenized and estimate._tokenizer is None:
        return
    if not isinstance(outcome, Recognised) or guess is None:
        return
    told = outcome.call.usage.tokens
    # Where thinking may be hidden, media are read or the provider adds context, an estimate is a lower bound.
    whole, output = usage.input_tokens(told) or 0, usage.output_tokens(told) or 0
    bound = any(name.startswith("estimate") for name in outcome.anomalies)
    if "input" in guess.tokens and not bound and whole >= LEAST:
        yield "input", guess.tokens.get("input", 0) / whole - 1
    if "output" in guess.tokens and not told.get("output_reasoning") and not bound and output >= LEAST:
        yield "output", guess.tokens["output"] / output - 1


def table(folder: Path) -> list[str]:
    """The lines of the table over the records below `folder`."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    exact: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _, record in read_folder(folder):
        if not isinstance(record, UnreadableRecord) and record.expected.billable:
            for side, error in errors(record):
                found[record.expected.provider, side].append(error)
            for side, error in errors(record, tokenized=True):
                exact[TOKENIZED, side].append(error)
    few: dict[tuple[str, str], list[float]] = defaultdict(list)
    lines = []
    for (provider, side), values in sorted(found.items()):
        if len(values) < FEW:
            few[OTHERS, side] += values
        else:
            lines.append(_line(provider, side, values))
    lines += [_line(provider, side, values) for (provider, side), values in sorted(few.items())]
    everything: dict[str, list[float]] = defaultdict(list)
    for (_, side), values in found.items():
        everything[side] += values
    lines += [_line("**all**", side, values) for side, values in sorted(everything.items())]
    lines += [_line(name, side, values) for (name, side), values in sorted(exact.items())]
    return [*HEADER, *lines]


def _line(provider: str, side: str, values: list[float]) -> str:
    sizes = sorted(abs(value) for value in values)
    high = sizes[math.ceil(0.95 * len(sizes)) - 1]
    return (
        f"| {provider} | {side} | {len(values)} | {median(sizes):.1%} | {high:.1%} | {fmean(values):+.1%} |"
    )


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
