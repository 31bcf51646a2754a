"""Real clients over real TLS, each answered as its provider would: what was read is what was answered.

`answers` says what the providers answer and what has to be read of it, `server.mjs` and `realtime.py` say
it over HTTP/1.1, HTTP/2 and WebSocket, `clients.py` are the programs that ask, `sensor.py` measures them.
The counts of an answer are different primes: one in the wrong place, or added twice, does not look right.
"""
