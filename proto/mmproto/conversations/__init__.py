"""What is said on one connection, by protocol: bytes of both directions in, outcomes of exchanges out.

`opening` finds out which protocol it is and which end asks, `http1` and `http2` pair requests with responses,
`upgraded` follows what HTTP gave way to, `server` counts what an observed server was asked. Each of them is a
`connection.Conversation`, and hands over to another one where the protocol changes.
"""
