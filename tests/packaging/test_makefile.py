"""`make help` lists what there is, and documents name no target that is not."""

from __future__ import annotations

import re

from tests.packaging.repository import ROOT, run, tracked_files

TARGET = re.compile(r"^\.PHONY: (\S+)$", re.MULTILINE)
NAMED = re.compile(r"\bmake ([a-z][a-z-]+)\b")
# Words that follow `make` in plain English.
ENGLISH = {"sure", "it", "one", "that", "a", "the"}
UNLISTED = {"build"}  # a step of set-up and nothing to be asked for


def targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text()))


def test_help_is_complete() -> None:
    listed = re.findall(r"^  ([a-z-]+) ", run("make", "help").stdout, re.MULTILINE)
    assert set(listed) == targets() - UNLISTED
    assert {
        "setup",
        "up",
        "demo",
        "test",
        "check",
        "bench",
        "install",
        "uninstall",
        "openapi",
        "lock",
    } <= set(listed)


def test_documents_name_only_targets_that_exist() -> None:
    for path in tracked_files():
        if path.suffix == ".md" or path.name == "run":
            code = re.findall(r"`[^`\n]+`|^    .*$", path.read_text(), re.MULTILINE)
            named = {name for line in code for name in NAMED.findall(line)}
            assert named <= targets() | ENGLISH, path


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text().split("\n## ")[0]
    assert "    make up " in opening
    assert "    make test " in opening
    assert "docs/images/dashboard.png" in opening


def test_set_up_has_nothing_to_do_the_second_time() -> None:
    run("make", "setup-dev")
    assert "setup: " not in run("make", "--dry-run", "setup-dev", "build").stdout
