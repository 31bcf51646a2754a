"""The kernel's side of the capture: the loaded probes, their maps and their links."""
