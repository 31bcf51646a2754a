"""`make install` and `make uninstall` into a staging folder; the units; what sdist and wheel hold."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.repository import ROOT, run

PREFIX = "/opt/modelmeter"
UNITS = [f"modelmeter-{name}.service" for name in ("pipeline", "sensor", "router", "work@", "sink@")]
EDITED = "listen: {port: 9780}\n"
COMMANDS = ["mmpipeline", "mmproto", "mmsensor", "mmrouter"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stage")
    # As on a machine that had ModelMeter before.
    (folder / "etc/modelmeter").mkdir(parents=True)
    (folder / "etc/modelmeter/pipeline.yaml").write_text(EDITED)
    run("make", "install", f"PREFIX={PREFIX}", f"DESTDIR={folder}")
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)  # half a gigabyte


@pytest.mark.timeout(600)
def test_everything_is_where_it_is_said_to_be(stage: Path) -> None:
    prefix = stage / PREFIX.lstrip("/")
    for command in COMMANDS:
        link = prefix / "bin" / command
        assert link.is_symlink()
        assert link.resolve() == (prefix / "lib/modelmeter/bin" / command).resolve()
    for name in ("pipeline", "sensor", "router"):
        assert (stage / f"etc/modelmeter/{name}.yaml").is_file()
    assert (prefix / "lib/sysusers.d/modelmeter.conf").is_file()
    documents = prefix / "share/doc/modelmeter"
    assert {"README.md", "docs/operate.md", "docs/reference/sensor.md"} <= {
        str(path.relative_to(documents)) for path in documents.rglob("*.md")
    }
    packages = next((prefix / "lib/modelmeter/lib").glob("python3.*")) / "site-packages"
    assert (packages / "mmsensor/_bpf/tls.bpf.o").is_file()
    assert (packages / "mmpipeline/dashboard/static/vendor/htmx.js").is_file()
    assert not (packages / "grpc_tools").exists(), "what only building needs is not installed"
    assert not (packages / "pytest").exists()


def test_the_installed_commands_run_on_their_own(stage: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        done = subprocess.run(
            [str(stage / PREFIX.lstrip("/") / "bin" / command), "version"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "0.1.0" in done.stdout


def test_nothing_installed_names_the_staging_folder(stage: Path) -> None:
    found = subprocess.run(
        ["grep", "-rlI", "--exclude=*.pyc", str(stage), str(stage)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def test_systemd_accepts_the_units(stage: Path) -> None:
    units = stage / PREFIX.lstrip("/") / "lib/systemd/system"
    assert sorted(path.name for path in units.glob("*.service")) == sorted(UNITS)
    for name in UNITS:
        text = (units / name).read_text()
        assert f"ExecStart={PREFIX}/lib/modelmeter/bin/mm" in text
        assert "/usr/local" not in text
        # systemd looks for the program where the unit will find it: below the stage, that is its root.
        (units / name).write_text(text.replace(f"={PREFIX}/lib", f"={stage}{PREFIX}/lib"))
    try:
        done = run("systemd-analyze", "verify", "--man=no", *(str(units / name) for name in UNITS))
        assert [line for line in done.stderr.splitlines() if "modelmeter" in line] == []
    finally:
        for name in UNITS:
            text = (units / name).read_text()
            (units / name).write_text(text.replace(f"={stage}{PREFIX}/lib", f"={PREFIX}/lib"))


def test_pipeline_and_router_are_unprivileged_and_the_sensor_holds_five_capabilities() -> None:
    for name in UNITS:
        lines = (ROOT / "systemd" / name).read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        assert settings["User"] == "modelmeter"
        assert settings["NoNewPrivileges"] == "yes"
        assert settings["ProtectSystem"] == "strict"
        held = set(settings["CapabilityBoundingSet"].split())
        if name == "modelmeter-sensor.service":
            assert len(held) == 5
            assert "CAP_SYS_ADMIN" not in held
            assert held == set(settings["AmbientCapabilities"].split())
        else:
            assert held == set()


def test_an_edited_configuration_is_kept_by_installation_and_removal(stage: Path) -> None:
    edited = stage / "etc/modelmeter/pipeline.yaml"
    assert edited.read_text() == EDITED
    run("make", "uninstall", f"PREFIX={PREFIX}", f"DESTDIR={stage}")
    left = sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if not path.is_dir())
    assert edited.read_text() == EDITED
    assert left == [f"etc/modelmeter/{name}.yaml" for name in ("pipeline", "router", "sensor")]


def test_wheel_and_sdist_hold_what_they_should(tmp_path: Path) -> None:
    run(str(Path(sys.executable).parent / "hatchling"), "build", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = {name.split("/")[0] for name in names}
    assert {"mmproto", "mmsensor", "mmpipeline", "mmrouter"} <= roots
    assert not {"tests", "proto", "packaging"} & roots
    assert "mmproto/v1/call_pb2.py" in names
    assert "mmsensor/_bpf/tls.bpf.o" in names
    assert "mmpipeline/dashboard/static/vendor/echarts.js" in names
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "Makefile",
        "bpf/tls.bpf.c",
        "packaging/apt/runtime.txt",
        "requirements/runtime.txt",
        "LICENSE",
    ):
        assert name in held, name
