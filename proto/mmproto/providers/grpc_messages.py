"""gRPC calls of APIs that have a JSON form, too: messages become the documents that a dialect reads already.

A dialect mixes this in before its JSON base and gives the tables of its request and response messages. A
message that is damaged is left out whole: half of it may lack the half that counts. The end of a call is in
its trailers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.events import Event
from mmproto.providers.dialect import Dialect
from mmproto.providers.protobuf_wire import MessageReader, Table

MALFORMED: Final = "malformed_protobuf"
_OK: Final = "0"


class GrpcCall(Dialect):
    """A call whose messages are protobuf."""

    has_text: ClassVar[bool] = False
    request_fields: ClassVar[Table]
    response_fields: ClassVar[Table]

    _request_message: MessageReader | None = None
    _response_message: MessageReader | None = None

    def read_request(self, document: Any) -> None:
        """JSON at the path of a gRPC call is no request: only messages have the types of a table."""

    def read_response(self, document: Any) -> None:
        """Nor is it an answer."""

    def take_request(self, document: dict[str, Any]) -> None:
        """Takes a message of the client, read by `request_fields`."""
        super().read_request(document)

    def read_request_event(self, event: Event) -> None:
        """Takes a message of the client."""
        self._request_message = self._request_message or MessageReader(self.request_fields)
        self._request_message.feed(event.data)
        if event.last:
            message, self._request_message = self._request_message, None
            if not event.name and (document := self._whole(message)) is not None:
                self.take_request(document)

    def read_event(self, event: Event) -> None:
        """Takes a message of the server."""
        self._response_message = self._response_message or MessageReader(self.response_fields)
        self._response_message.feed(event.data)
        if event.last:
            message, self._response_message = self._response_message, None
            if not event.name and (document := self._whole(message)) is not None:
                self.take_event("", document)

    def lose(self) -> None:
        """A message that was under way is lost."""
        super().lose()
        self._request_message = self._response_message = None

    def read_trailers(self, headers: Mapping[str, str]) -> None:
        """The status: a call that ended well is complete."""
        super().read_trailers(headers)
        if headers.get("grpc-status") == _OK:
            self.facts.terminated = True

    def _whole(self, message: MessageReader) -> dict[str, Any] | None:
        document = message.finish()
        if message.damaged:
            self.facts.anomaly(MALFORMED)
            return None
        return document
