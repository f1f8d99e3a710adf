"""The checked-in OpenAPI document is the one that is served.

`UPDATE_GOLDEN=1 pytest tests/unit/control/api/test_openapi_document.py` writes it anew; a change of it is
a change of what scripts outside rely on: say so in the changelog.
"""

import json
import os
from pathlib import Path

from facade.control.api.openapi import document
from facade.control.api.routes import ENDPOINTS
from tests.support.operator_services import Client

CHECKED_IN = Path(__file__).parents[4] / "deploy" / "openapi.json"


async def test_the_checked_in_document_is_current(api: Client) -> None:
    served = await (await api.get("/api/v1/openapi.json")).json()
    text = json.dumps(served, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        CHECKED_IN.write_text(text)
    assert CHECKED_IN.read_text() == text, "run this test with UPDATE_GOLDEN=1 and read the change"


def test_an_optional_parameter_is_described_without_null() -> None:
    parameters = document(ENDPOINTS)["paths"]["/api/v1/artifacts"]["get"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert schemas["fleet"] == {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "title": "Fleet",
    }
    assert schemas["limit"]["maximum"] == 200
