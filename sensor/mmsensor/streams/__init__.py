"""From records of the ring to the ordered bytes of a connection. Pure: no kernel, no clock, no threads."""
