"""What documents name is there: files, links, commands, and their options."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.repository import ROOT, run, tracked_files

LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"^(?:    |.*\| )(mm(?:sensor|pipeline|router|proto) (?! )[^#|\n]*)", re.MULTILINE)
DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path: Path) -> None:
    for target, section in LINK.findall(path.read_text()):
        if "://" not in target:
            file = path.parent / target if target else path
            assert file.exists(), f"{path.relative_to(ROOT)} names {target}"
            assert not section or section in sections(file), (
                f"{path.relative_to(ROOT)} names {target}#{section}"
            )


def sections(path: Path) -> set[str]:
    """Names by which links find the headings of a document, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(path.read_text())
    }


def test_every_source_of_the_probes_is_described() -> None:
    described = re.findall(r"^\| `(\w[\w.]*\.[ch])` \|", (ROOT / "bpf/README.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(path.name for path in (ROOT / "bpf").glob("*.[ch]"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_exist(path: Path) -> None:
    for line in COMMAND.findall(path.read_text()):
        words = shlex.split(line)
        arguments = [word for word in words[1:] if not word.startswith("-")]
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        # The longest beginning of the words that is a command; the rest are its arguments.
        for end in range(len(arguments), 0, -1):
            program = str(Path(sys.executable).parent / words[0])
            help_text = run_help(program, *arguments[:end])
            if help_text:
                break
        else:
            pytest.fail(f"no such command: {line.strip()}")
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text))
        assert options <= known, f"{line.strip()}: {', '.join(sorted(options - known))}"


def run_help(program: str, *arguments: str) -> str:
    """The help of a command, or nothing where there is none of that name."""
    done = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, check=False)
    usage = done.stdout.splitlines()[0] if done.stdout else ""
    # A group answers --help for an unknown subcommand too in some versions of click: its usage line tells.
    return done.stdout if done.returncode == 0 and arguments[-1] in usage else ""


def test_no_tracked_file_names_this_machine() -> None:
    """No path of a developer's machine, no registry or mirror."""
    wrong = re.compile(
        rb"/work/(?:main|shared)|/root/|/home/[a-z]|files\.pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org"
    )
    for path in tracked_files():
        if path != Path(__file__):
            found = wrong.search(path.read_bytes())
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0].decode()}"


def test_locks_hold_hashes_and_no_addresses() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        pinned = re.findall(r"^\S+==\S+.*\\$", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9].*==", text, re.MULTILINE))
        assert "://" not in text


def test_the_runtime_lock_is_part_of_the_dev_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("runtime.txt") <= pins("dev.txt")


def test_example_configurations_are_what_the_daemons_accept() -> None:
    tools = Path(sys.executable).parent
    example = ROOT / "packaging/etc"
    run(str(tools / "mmsensor"), "config", "validate", "--config", str(example / "sensor.yaml"))
    run(str(tools / "mmrouter"), "config", "validate", "--config", str(example / "router.yaml"))
    run(str(tools / "mmpipeline"), "config", "validate", "--config", str(example / "pipeline.yaml"))
