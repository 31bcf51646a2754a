"""Opens connections to port 443 of its own network namespace, one for a line; nothing is said over them.

Run it in a namespace of its own: unshare --net
"""

from __future__ import annotations

import socket
import subprocess
import sys

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 443))
connections = [socket.create_connection(("127.0.0.1", 443))]
print("connected", flush=True)
for _ in sys.stdin:
    connections.append(socket.create_connection(("127.0.0.1", 443)))
    print("connected", flush=True)
