"""The probes on kernels that this machine does not run: Debian's, booted in QEMU. `make test-kernels`."""
