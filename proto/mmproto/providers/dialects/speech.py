"""Speech that is billed by the character, where only a header of the answer says how many were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured


class SpeechByHeader(Dialect):
    """How a provider's speech is counted; its own base reads the errors."""

    operation: ClassVar[str] = "speech"
    answers_bytes: ClassVar[bool] = True
    characters_header: ClassVar[str]

    _characters: str | None = None

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """What is billed stands in a header, of an answer that is none of an error."""
        super().read_response_head(status, headers)
        if 200 <= status < 300:
            self._characters = headers.get(self.characters_header)

    def measured(self, *, complete: bool) -> Measured:
        """Characters."""
        counts = Counts(self.facts)
        characters = counts.of_text(self._characters)
        if characters is None:
            return Measured()
        return Measured({}, {"characters": float(characters)}, counts.quality())
