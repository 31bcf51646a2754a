"""Folders as the kernel shows them, of machines that we do not have."""

from __future__ import annotations

import struct
from pathlib import Path

from mmsensor.doctor.surroundings import Surroundings

BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 0)
EVERYTHING = (1 << 41) - 1


class Machine:
    """Starts as one where all is well; a test takes away or changes what it is about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc = folder / "proc"
        self.sys = folder / "sys"
        self.state = folder / "state"
        self.config = folder / "sensor.yaml"
        self.state.mkdir(parents=True)
        self.config.write_text("")
        self.write("proc/self/status", f"Name:\tx\nCapEff:\t{EVERYTHING:016x}\nSeccomp:\t0\n")
        self.write(
            "proc/self/timens_offsets", "monotonic           0         0\nboottime            0         0\n"
        )
        self.write("proc/self/cgroup", "0::/here\n")
        self.write("proc/self/mountinfo", "22 1 0:20 / /proc rw,relatime shared:5 - proc proc rw\n")
        self.write("proc/meminfo", "MemTotal:  8000000 kB\nMemAvailable:    4000000 kB\n")
        self.write("sys/kernel/btf/vmlinux", BTF + b"\0bpf_uprobe_multi_link_attach\0")
        self.write("sys/bus/event_source/devices/uprobe/type", "9\n")

    def write(self, path: str, content: str | bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def holds(self, effective: int) -> None:
        self.write("proc/self/status", f"Name:\tx\nCapEff:\t{effective:016x}\n")

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def look(self) -> Surroundings:
        return Surroundings(self.config, {"state_dir": str(self.state)}, proc=self.proc, sys=self.sys)
