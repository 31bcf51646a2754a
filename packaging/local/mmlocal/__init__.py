"""`make up` and `make demo`: the three daemons on one machine, started, watched and stopped together.

Nothing in here is part of a product: it runs their command lines as a person would, and knows no more of them
than their readiness line, their state folder and their exit.
"""
