"""An installation is lost under load and comes back from its backup: no fax of it is lost, and none is sent twice."""

from __future__ import annotations

import pytest

from tests.carrier import SimulatorProcess
from tests.drill.run import drill
from tests.ground import Ground
from tests.installation import Installation

STORES = ("embedded", "postgresql")


def test_what_was_sent_after_the_backup_is_not_sent_again_and_what_was_not_goes(
    request: pytest.FixtureRequest, store: Installation, ground: Ground
) -> None:
    postgres = None if store.store == "embedded" else request.getfixturevalue("postgres_server")
    with SimulatorProcess(ground.new_folder("carrier")) as carrier:
        result = drill(store, carrier, postgres, faxes=18, seed=1)

    assert (result.lost, result.twice) == ([], []), result.line
    assert result.sent_since > 0, "nothing was sent after the backup: nothing could come twice"
    assert result.told_since + result.repeated == result.accepted_since
