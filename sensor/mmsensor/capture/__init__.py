"""Everything that touches the kernel: loading the probes, finding what to probe, draining the ring.

`session.Capture` is the one door; the rest of the sensor sees `streams.events` coming out of it.
"""
