"""Rate books: what this installation would charge by, and what two books do not agree about.

An installed book is compiled from the price catalogue and a file of negotiated rates. `installed` compiles
a provider when it is first asked for; `complete` compiles all of it, and names the book by a digest of all
that it says, so that one version is one content wherever it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpipeline.rating import buckets, cards, catalogue, negotiated, overrides
from mmpipeline.rating.shelf import Shelf
from mmproto import ratebook, rateform, rating
from mmproto.ratebook import ModelRates, RateBook
from mmproto.settings import ConfigurationError, Problem

# The code that makes a book from a catalogue and a file: another text of it may make another book.
_CODE = (buckets, cards, catalogue, negotiated, overrides, ratebook, rateform, rating)


class Installed:
    """What is installed here: the catalogue, and the overrides in a file.

    Reading the file and making the book raise ConfigurationError.
    """

    def __init__(self, overrides_file: Path | None = None) -> None:
        self.file = overrides_file
        self._entries = () if overrides_file is None else overrides.read_overrides(overrides_file)

    @property
    def source(self) -> str:
        """What a book of it is made from, for people."""
        name = catalogue.catalogue_version()
        return name if self.file is None else f"{name} with {self.file}"

    def made_from(self) -> str:
        """A digest that changes whenever a book of it might, found without compiling anything."""
        digest = hashlib.sha256(catalogue.catalogue_version().encode())
        for module in _CODE:
            digest.update(Path(str(module.__file__)).read_bytes())
        digest.update(repr(self._entries).encode())
        return digest.hexdigest()[:32]

    def book(self) -> RateBook:
        """The book, each provider compiled when it is first asked for."""
        version = catalogue.catalogue_version()
        listed = Shelf(catalogue.provider_ids(), catalogue.PROVIDERS, catalogue.models_of)
        if not self._entries:
            return RateBook(version, listed)
        try:
            over = negotiated.negotiated(self._entries, lambda name: listed.get(name, ()))
        except negotiated.NoListPrice as error:
            problem = Problem(str(self.file), str(error), "correct the name, or give prices instead")
            raise ConfigurationError([problem]) from error
        ids = sorted(card.id for models in over.values() for m in models for card in m.cards)
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]
        shelf = Shelf(over, catalogue.PROVIDERS, over.__getitem__)
        return RateBook(f"{version} with overrides {digest}", listed, shelf)

    def complete(self) -> RateBook:
        """The whole book, under a version that says all that it holds."""
        book = self.book()
        digest = hashlib.sha256()
        for is_override, provider, models in shelves(book):
            form = [is_override, provider, models_form(models)]
            digest.update(json.dumps(form, sort_keys=True).encode())
        digest.update(json.dumps(dict(aliases(book)), sort_keys=True).encode())
        version = f"{catalogue.catalogue_version()} #{digest.hexdigest()[:12]}"
        return RateBook(version, book.catalogue, book.overrides)


def shelves(book: RateBook) -> Iterator[tuple[bool, str, Sequence[ModelRates]]]:
    """(whether negotiated, provider, models), of the whole book."""
    for is_override, shelf in ((False, book.catalogue), (True, book.overrides)):
        for provider in sorted(shelf):
            yield is_override, provider, shelf[provider]


def aliases(book: RateBook) -> Mapping[str, str]:
    """Other names of the book's providers."""
    return book.catalogue.aliases if isinstance(book.catalogue, Shelf) else {}


def models_form(models: Iterable[ModelRates]) -> list[dict[str, Any]]:
    """What a book says of a provider's models: how they are matched, and which cards, until when, by whom."""
    return [
        {
            "model": model.model,
            "match": model.match,
            "cards": [
                {"id": card.id, "effective_to": card.effective_to_unix_ns, "sources": list(card.sources)}
                for card in model.cards
            ],
        }
        for model in models
    ]
