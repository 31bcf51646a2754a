"""The models of a rate book by provider, made when a provider is first asked for.

A book has some 2,500 models; a process prices those of a handful of providers. Providers have more than
one name (`azure.ai.openai` is the catalogue's `azure`): a shelf is asked by any of them and lists one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mmproto.ratebook import ModelRates


class Shelf(Mapping[str, Sequence[ModelRates]]):
    """Thread-safe: threads that ask at once may make the same models twice, and all get equal ones."""

    def __init__(
        self,
        names: Iterable[str],
        aliases: Mapping[str, str],
        make: Callable[[str], Sequence[ModelRates]],
    ) -> None:
        self.aliases = aliases
        self._names = tuple(names)
        self._known = frozenset(self._names)
        self._make = make
        self._made: dict[str, Sequence[ModelRates]] = {}

    def __getitem__(self, provider: str) -> Sequence[ModelRates]:
        name = self.aliases.get(provider, provider)
        if name not in self._known:
            raise KeyError(provider)
        models = self._made.get(name)
        if models is None:
            models = self._made.setdefault(name, tuple(self._make(name)))
        return models

    def __contains__(self, provider: object) -> bool:
        return isinstance(provider, str) and self.aliases.get(provider, provider) in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
