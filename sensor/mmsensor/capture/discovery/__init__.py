"""Which files the processes of this machine run code from, and the probes kept in step with that."""
