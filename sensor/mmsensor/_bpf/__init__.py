"""The BPF objects, compiled from `bpf/` by `make setup`; found through importlib.resources."""
