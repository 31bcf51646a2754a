"""The distribution package lists: their form, what set-up makes of them, and that the packages exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.repository import ROOT, run

SCRIPT = ROOT / "packaging/local/system-packages.sh"
LISTS = sorted((ROOT / "packaging/apt").glob("*.txt"))
THIS_MACHINE = Path("/etc/os-release")


@pytest.fixture
def dpkg(tmp_path: Path) -> Path:
    """A folder for PATH with a dpkg-query that knows only the packages in `installed` beside it."""
    (tmp_path / "installed").touch()
    stand_in = tmp_path / "dpkg-query"
    # Called as: dpkg-query -W -f=FORMAT PACKAGE
    stand_in.write_text(f'#!/bin/sh\ngrep -qx "$3" {tmp_path}/installed && printf installed\n')
    stand_in.chmod(0o755)
    return tmp_path


def missing(
    dpkg: Path, release: Path = THIS_MACHINE, lists: tuple[str, ...] = ("runtime", "test", "distributed")
) -> list[str]:
    path = f"{dpkg}:{os.environ['PATH']}"
    return run(str(SCRIPT), "--print", *lists, PATH=path, OS_RELEASE=str(release)).stdout.splitlines()


def release(folder: Path, text: str) -> Path:
    path = folder / "os-release"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_list_names_each_package_once(path: Path) -> None:
    lines = [line.split("#")[0].partition("[")[0] for line in path.read_text().splitlines()]
    names = " ".join(lines).replace("|", " ").split()
    assert names
    assert len(names) == len(set(names))


def test_every_package_exists_in_this_distribution(dpkg: Path) -> None:
    wanted = missing(dpkg)
    assert "clang" in wanted
    names = " ".join(wanted).replace("|", " ").split()
    index = subprocess.run(["apt-cache", "show", *names], capture_output=True, text=True, check=False).stdout
    known = set(re.findall(r"^Package: (\S+)$", index, re.MULTILINE))
    for alternatives in wanted:
        named = set(alternatives.replace("|", " ").split())
        assert named & known, f"no package for {alternatives!r}; is the index there (apt-get update)?"


def test_nothing_is_missing_after_set_up() -> None:
    assert run(str(SCRIPT), "--print", "runtime", "test", "distributed").stdout == ""


def test_only_ubuntu_22_04_gets_a_python_beside_its_own(dpkg: Path) -> None:
    jammy = release(dpkg, 'ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04"\nID_LIKE=debian\n')
    assert {"python3.11", "python3.11-venv"} <= set(missing(dpkg, jammy))
    noble = release(dpkg, 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04"\nID_LIKE=debian\n')
    assert "python3.11" not in missing(dpkg, noble)
    bookworm = release(dpkg, 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    assert "python3.11" not in missing(dpkg, bookworm)
    assert "chromium" in missing(dpkg, bookworm)


def test_one_installed_alternative_is_enough(dpkg: Path) -> None:
    assert "libbpf1 | libbpf0" in missing(dpkg)
    (dpkg / "installed").write_text("libbpf0\n")
    assert "libbpf1 | libbpf0" not in missing(dpkg)


def test_without_root_it_names_what_is_missing_and_what_to_do(dpkg: Path) -> None:
    # The user "nobody" cannot read everybody's checkout, so the script and its lists come along.
    copy = dpkg / "packaging"
    run("cp", "-r", str(ROOT / "packaging"), str(copy))
    run("chmod", "-R", "a+rX", str(dpkg))
    for folder in (dpkg, *dpkg.parents[:2]):
        folder.chmod(0o755)
    done = run(
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(str(copy / "local/system-packages.sh"), "runtime"),
        code=77,
        PATH=f"{dpkg}:{os.environ['PATH']}",
    )
    assert len(done.stderr.splitlines()) == 1
    assert "clang" in done.stderr
    assert "sudo make setup" in done.stderr


def test_another_distribution_is_told_what_to_do(dpkg: Path) -> None:
    fedora = release(dpkg, 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora 43"\n')
    done = run(str(SCRIPT), "runtime", code=1, PATH=f"{dpkg}:{os.environ['PATH']}", OS_RELEASE=str(fedora))
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "Fedora 43" in done.stderr
