"""All checks, in the order in which one rests on the other. A new check is a row."""

from __future__ import annotations

from mmsensor.doctor import kernel, local, machine, parts, pipeline, rights, sensor, trial
from mmsensor.doctor.findings import Check

CHECKS = (
    Check("machine", "platform", "Linux on x86_64 or aarch64", machine.check_platform),
    Check("machine", "kernel", "5.15 or newer, and what newer ones add", machine.check_kernel),
    Check("machine", "btf", "type information of the running kernel", machine.check_btf),
    Check("machine", "clock", "the boot clock is not shifted by a time namespace", machine.check_clock),
    Check("machine", "memory", "room for the sensor and its ring", machine.check_memory),
    Check("rights", "capabilities", "those that this user holds", rights.check_capabilities),
    Check("rights", "unit", "those that the systemd unit grants", rights.check_unit),
    Check(
        "rights", "namespaces", "the machine's own user, pid and cgroup namespaces", rights.check_namespaces
    ),
    Check("rights", "processes", "/proc shows all processes and what they map", rights.check_processes),
    Check("probes", "libbpf", "installed, and its version", parts.check_libbpf),
    Check("probes", "bcc", "the second loader, where there is no type information", parts.check_bcc),
    Check("probes", "object", "the compiled probes are there", parts.check_probes),
    Check("probes", "lockdown", "the kernel lets programs read memory", kernel.check_lockdown),
    Check("probes", "bpf", "bpf(2) loads a program, by trial", kernel.check_bpf),
    Check("probes", "links", "which kinds of links the kernel has", kernel.check_links),
    Check("probes", "discovery", "how new TLS libraries are noticed, by trial", kernel.check_discovery),
    Check(
        "probes",
        "returns",
        "return probes do not kill programs under seccomp, by trial",
        trial.check_returns,
        trial.LIMIT_S,
        ("links",),
    ),
    Check(
        "probes",
        "capture",
        "a TLS exchange of doctor's own is captured whole, by trial",
        trial.check_capture,
        trial.LIMIT_S,
        ("btf", "namespaces", "libbpf", "object", "bpf"),
    ),
    Check("probes", "others", "nobody else probes TLS libraries", sensor.check_other_sensors),
    Check("storage", "configuration", "it is valid", local.check_configuration),
    Check("storage", "state", "the state folder can be written", local.check_state_folder),
    Check("storage", "disk", "the spool can grow to its limit", local.check_disk),
    Check("storage", "spool", "it is a spool, and none was set aside as damaged", local.check_spool),
    Check("delivery", "token", "there is one to show to the pipeline", local.check_token),
    Check(
        "delivery",
        "pipeline",
        "it, or Kafka, answers and would take calls, by trial",
        pipeline.check_pipeline,
    ),
    Check("sensor", "status", "a sensor runs, and its own verdict", sensor.check_sensor),
)
