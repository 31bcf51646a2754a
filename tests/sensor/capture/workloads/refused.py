"""A client that says whom it wants and gets garbage for an answer."""

from __future__ import annotations

import ssl

from tests.sensor.capture.workloads.control import report, wait_for_go

wait_for_go()
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
connection = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="nobody.example")
for answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
    incoming.write(answer)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        continue
    except ssl.SSLError as error:
        refused = str(error)
del connection
report(refused=refused)
