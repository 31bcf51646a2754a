from __future__ import annotations

import json
from pathlib import Path

from openapi_spec_validator import validate

from mmpipeline.api.openapi import document

COMMITTED = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"


def test_the_committed_document_is_what_the_code_says() -> None:
    assert COMMITTED.read_bytes() == document(), "run `make openapi` and commit docs/reference/openapi.json"


def test_the_document_is_valid() -> None:
    validate(json.loads(COMMITTED.read_bytes()))
