"""Whether the pipeline answers, and takes what we would send."""

from __future__ import annotations

from mmproto.delivery import IngestClient, Rejected, Retry
from mmsensor.doctor.findings import Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings

#: Long enough for a pipeline on the other side of the world, short enough for a person who waits.
_TIMEOUT_S = 4.0


def check_pipeline(place: Surroundings) -> Finding:
    """Sends a batch without a call in it, as the sensor sends its own: address, TLS and token in one."""
    settings = place.settings
    if settings.sink != "ingest":
        return ok(f"not asked: calls go to {settings.sink}")
    url = settings.ingest_url()
    client = IngestClient(
        url, settings.node_name, settings.token_file, timeout_s=min(_TIMEOUT_S, settings.ingest.timeout_s)
    )
    try:
        client.post([])
    except Retry as problem:
        return _no_receipt(problem, url)
    except Rejected as problem:
        return fail(f"{url}: {problem}", "run the same version of sensor and pipeline")
    finally:
        client.close()
    return ok(f"{url} takes our calls")


def _no_receipt(problem: Retry, url: str) -> Finding:
    """The sensor goes on measuring without it: calls wait in the spool."""
    if problem.reason == "no_token":
        return skipped(f"not asked: {problem}", "run `mmsensor doctor` with sudo or as the sensor's user")
    fixes = {
        "bad_url": "correct ingest.url in the sensor's configuration",
        "unauthorized": "copy the pipeline's ingest.token to the file that ingest.token_file names",
        "not_a_receipt": "set ingest.url to the address that `mmpipeline serve` prints",
    }
    fix = fixes.get(
        problem.reason, "start mmpipeline, or set ingest.url to where it is; until then calls wait on disk"
    )
    return warn(f"{url}: {problem}", fix)
