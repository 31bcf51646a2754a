"""Finds out whether return probes kill sandboxed programs on this kernel.

Since Linux 6.11 a function with a return probe leaves, on x86-64, through a system call of the kernel's own
making. Until that was exempted (6.14, and the stable kernels that took the fix) seccomp filters saw it, did
not know it, and killed the process, or failed the call, which kills it as well: container runtimes, systemd
units and browsers all have such filters. Distributors move fixes between versions, so the version number
tells nothing and we try: a child process of ours forbids itself everything but exit(2) and then returns
from a probed function.

The child runs machine code from a memory file, because between the filter and the exit not one other
system call may happen, and Python promises nothing of the kind.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from contextlib import ExitStack

from mmsensor.capture.kernel import syscalls

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

_PR_SET_NO_NEW_PRIVS = 38
_EXIT = 60  # of x86-64
_NO_SECCOMP, _NOT_STARTED = 2, 3  # exit codes of the child
_PROBED = 0  # offset of the probed function; what calls it follows
_CALLER = 16
_CODE = (
    # nop; ret
    bytes.fromhex("90 c3").ljust(_CALLER, b"\xcc")
    # prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, the argument): mov %rdi,%rdx; mov $22,%edi; mov $2,%esi;
    # mov $157,%eax; syscall
    + bytes.fromhex("48 89 fa bf 16 00 00 00 be 02 00 00 00 b8 9d 00 00 00 0f 05")
    # mov $2,%edi; test %eax,%eax; jne over the next two
    + bytes.fromhex("bf 02 00 00 00 85 c0 75 07")
    # call the probed function, 50 bytes back; xor %edi,%edi
    + bytes.fromhex("e8 ce ff ff ff 31 ff")
    # mov $60,%eax; syscall
    + bytes.fromhex("b8 3c 00 00 00 0f 05")
)
# Classic BPF over struct seccomp_data: exit(2) is allowed, all else kills the process.
_FILTER = struct.pack(
    "=HBBIHBBIHBBIHBBI",
    *(0x20, 0, 0, 0),  # load the number of the call
    *(0x15, 0, 1, _EXIT),  # if it is exit, go on, else skip one
    *(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    *(0x06, 0, 0, 0x80000000),  # SECCOMP_RET_KILL_PROCESS
)


def returns_survive_seccomp(pmu: int, return_bit: int) -> bool | None:
    """Whether a process under a seccomp filter survives a return probe; None where that cannot be tried.

    `pmu` and `return_bit` are those of the kernel's uprobe perf events. Takes a fifth of a second, most of it
    the kernel's, which takes the probe off. Forks: call it before there are threads that hold locks.
    """
    if platform.machine() != "x86_64":
        return True  # no other machine has the system call
    try:
        return _try(pmu, return_bit)
    except OSError:
        return None


def _try(pmu: int, return_bit: int) -> bool | None:
    with ExitStack() as stack:
        code = os.memfd_create("mmsensor-uretprobe", os.MFD_CLOEXEC)
        stack.callback(os.close, code)
        os.write(code, _CODE)
        address = _mapped(code)
        stack.callback(_libc.munmap, address, mmap.PAGESIZE)
        ready, go = os.pipe()
        child = os.fork()
        if not child:
            os.close(go)
            _run(ready, address)
        os.close(ready)
        try:
            counter = syscalls.open_uprobe_counter(pmu, f"/proc/self/fd/{code}", _PROBED, return_bit, child)
            stack.callback(os.close, counter)
            os.write(go, b"\n")
        finally:
            os.close(go)
            _, status = os.waitpid(child, 0)
        fired = int.from_bytes(os.read(counter, 8), "little") > 0
        if os.WIFSIGNALED(status):
            return False
        return True if fired and not os.WEXITSTATUS(status) else None


def _mapped(code: int) -> int:
    # Private: the kernel puts no probes into memory that is shared for writing.
    address = _libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, code, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "cannot run a memory file")
    return int(address)


def _run(ready: int, address: int) -> None:
    """In the child; does not return."""
    try:
        if os.read(ready, 1):
            instructions = ctypes.create_string_buffer(_FILTER, len(_FILTER))
            program = struct.pack("=H6xQ", len(_FILTER) // 8, ctypes.addressof(instructions))
            argument = ctypes.create_string_buffer(program, len(program))
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address + _CALLER)(ctypes.addressof(argument))
    finally:
        os._exit(_NOT_STARTED)
