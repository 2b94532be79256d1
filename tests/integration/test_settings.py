"""What a whole faxbot says of its settings when it starts."""

from __future__ import annotations

from tests.conftest import StartService
from tests.installation import Installation


def test_a_misspelt_setting_is_named_once_with_the_one_that_is_meant(
    embedded: Installation, start_service: StartService
) -> None:
    service = start_service(embedded, "up", FAXBOT_LEASE_SECOND="pass-word", FAXBOT_PROT="1")
    (line,) = [line for line in service.output().splitlines() if "no such setting" in line]

    assert "FAXBOT_LEASE_SECOND (is FAXBOT_LEASE_SECONDS meant?)" in line
    assert "FAXBOT_PROT (is FAXBOT_PORT meant?)" in line
    assert "pass-word" not in service.output()
