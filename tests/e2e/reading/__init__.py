"""Real clients over real TLS, each answered as its provider would: what was read is what was answered.

`answers.py` says what the providers answer and what has to be read of it, `server.mjs` and `realtime.py` say
it over HTTP/1.1, HTTP/2 and WebSocket, `clients.py` are the programs that ask. All counts are primes that
stand nowhere else, so that a number in the wrong place cannot look right.
"""
