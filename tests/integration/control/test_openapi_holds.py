"""The running operator API against its own OpenAPI document, with generated requests (schemathesis).

Guarantees: whatever is sent, valid by the document or not, no answer is a server error, and each has a
status, a type and a body that the document states, and what is malformed by the document is refused.
Requests go to things that exist and to ones that do not.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from facade.control.api.openapi import document
from facade.control.api.routes import ENDPOINTS
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import one_layer_image
from tests.support.people import connect
from tests.support.registry import Registry

EXAMPLES = 20
"""Requests per route, beside those that the checks make of their own."""
REPOSITORY = "org/app"

_MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
_SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
async def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        registry.add_image(REPOSITORY, one_layer_image(b"layer"), "v1")
        host = await connect(facade, registry)
        await facade.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
        there = {"host": host, "fleet": "dev", "name": "app", "version": "v1"}
        try:
            await asyncio.to_thread(_try_every_route, facade, there)
        finally:
            print(*(event for event in facade.events if event["level"] == "error"), sep="\n")
        assert "operator_request_failed" not in facade.log, "nothing broke inside"
        assert (await facade.must("fleet", "list")).code == 0, "and it goes on"


def _try_every_route(facade: FacadeProcess, there: Mapping[str, str]) -> None:
    key = (facade.state / "api-key").read_text().strip()
    described = document(ENDPOINTS)
    del described["security"]  # every request here has the key
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=facade.operator)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == len(ENDPOINTS) + 1
    # What deletes comes last, so that the others find something.
    for operation in sorted(operations, key=lambda each: each.method == "delete"):
        _try(operation, there, {"Authorization": f"Bearer {key}"})


def _try(operation: Any, there: Mapping[str, str], headers: Mapping[str, str]) -> None:
    # The grammar of names is stricter than the document, which bounds their lengths only; wrong
    # keys are answered 429 in the end (tests/unit/control/api/test_operator_auth.py has both); a
    # registry that cannot be reached is a 502, which is no defect of ours.
    excluded = CHECKS.get_by_names(
        ["positive_data_acceptance", "ignored_auth", "not_a_server_error"]
    )

    @_SETTINGS
    @given(data=st.data(), mode=st.sampled_from(_MODES), aimed=st.booleans())
    def holds(data: st.DataObject, mode: GenerationMode, aimed: bool) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if aimed and mode is GenerationMode.POSITIVE:  # else it would mend what is to be refused
            _aim(case, there)
        answer = case.call(headers=headers)
        assert answer.status_code != 500, case.as_curl_command()[:2000]
        if answer.status_code != 413:  # a refusal too, that schemathesis does not expect
            case.validate_response(answer, headers=headers, excluded_checks=excluded)

    holds()


def _aim(case: Any, there: Mapping[str, str]) -> None:
    """Point a generated request at what exists, where it points at anything."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = there.get(name, case.path_parameters[name])
    for part in (case.query, case.body):
        if isinstance(part, dict):
            known = {**there, "repository": REPOSITORY, "reference": "v1", "tags": ["v1"]}
            for name in part:
                if name in known and isinstance(part[name], type(known[name])):
                    part[name] = known[name]
