"""All checks, in the order in which one rests on the other. A new check is a row."""

from __future__ import annotations

from mmsensor.doctor import kernel, local, machine, parts, pipeline, rights, sensor, trial
from mmsensor.doctor.findings import Check

CHECKS = (
    Check("machine", "platform", machine.check_platform),
    Check("machine", "kernel", machine.check_kernel),
    Check("machine", "btf", machine.check_btf),
    Check("machine", "clock", machine.check_clock),
    Check("machine", "memory", machine.check_memory),
    Check("rights", "capabilities", rights.check_capabilities),
    Check("rights", "unit", rights.check_unit),
    Check("rights", "namespaces", rights.check_namespaces),
    Check("rights", "processes", rights.check_processes),
    Check("probes", "libbpf", parts.check_libbpf),
    Check("probes", "bcc", parts.check_bcc),
    Check("probes", "object", parts.check_probes),
    Check("probes", "lockdown", kernel.check_lockdown),
    Check("probes", "bpf", kernel.check_bpf),
    Check("probes", "links", kernel.check_links),
    Check("probes", "mappings", kernel.check_perf_events),
    Check("probes", "returns", trial.check_returns, trial.LIMIT_S, ("links",)),
    Check(
        "probes",
        "capture",
        trial.check_capture,
        trial.LIMIT_S,
        ("btf", "namespaces", "libbpf", "object", "bpf"),
    ),
    Check("probes", "others", sensor.check_other_sensors),
    Check("storage", "configuration", local.check_configuration),
    Check("storage", "state", local.check_state_folder),
    Check("storage", "disk", local.check_disk),
    Check("storage", "spool", local.check_spool),
    Check("delivery", "token", local.check_token),
    Check("delivery", "pipeline", pipeline.check_pipeline),
    Check("sensor", "status", sensor.check_sensor),
)
