"""A labelled stand-in for the LLM providers, because the real ones cannot be had in a test or a demo.

Everything under the HTTP answers is real: a certificate authority made by openssl, TLS on a port that the
kernel gives, HTTP/1.1 with keep-alive, chunked bodies, gzip and server-sent events. What is made up is the
text and the token counts, those by a formula that a test can repeat (`usage.py`) or by the caller's order
(`plan.py`).

Every request served is written to a journal (`journal.py`): the truth that measurements are compared with.
Prompts are read for their length only and kept nowhere.
"""
