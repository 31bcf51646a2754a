"""Measures the reading itself: recorded exchanges with known numbers, through the bytes of real connections.

`record` reads a record (and `shapes` its realtime messages, whatever they are called), `variants` says in
which ways it is sent, the writers (`http1`, `http2`, `websocket`, `grpc`) make the bytes of a connection,
`replay` cuts them and feeds them to the reader, `observed` sums up what came out, `compare` holds that
against what is expected, `scoring` gives the verdict, `folder` takes all records, `report` makes the tables.
"""
