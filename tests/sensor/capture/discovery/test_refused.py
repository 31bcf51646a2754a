"""What the kernel refuses to probe is shown with the reason, and tried again with growing pauses."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sensor.capture.recorder import recording, started

pytestmark = pytest.mark.capture

#: Functions that begin with an instruction which no uprobe may sit on.
SOURCE = """
#define FUNCTION(name) __asm__(".globl " #name "\\n.type " #name ", @function\\n" #name ": .byte 0xf4\\n")
FUNCTION(SSL_read);
FUNCTION(SSL_write);
FUNCTION(SSL_free);
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is one of x86")
def test_a_refused_file_is_tried_again_later_and_later(tmp_path: Path) -> None:
    source = tmp_path / "refused.c"
    source.write_text(SOURCE)
    library = tmp_path / "libssl-refused.so"
    subprocess.run(["clang", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('loaded', flush=True); sys.stdin.readline()"
    with recording() as recorder, started([sys.executable, "-c", script, str(library)]) as workload:
        workload.line()

        def reason() -> str:
            found = [each for each in recorder.capture.targets() if each.path == str(library)]
            assert not any(each.attached for each in found)
            return found[0].reason if found else ""

        recorder.until(lambda: reason().startswith("attach_failed: "), "refused")
        recorder.until(lambda: "; next try in 4 s" in reason(), "refused again")
        recorder.until(lambda: "; next try in 8 s" in reason(), "and again")
