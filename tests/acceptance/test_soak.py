"""Any process, at any moment: each fax still arrives once. A short soak of both stores, and of a broken build."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import BOTH
from tests.planted import build
from tests.soak.__main__ import finds, run
from tests.soak.broken import PLANTED


@pytest.mark.parametrize("kind", BOTH)
def test_kills_at_random_moments_lose_nothing_and_double_nothing(kind: str) -> None:
    result = run(kind, kills=12, seed=1)

    assert result.is_good, result
    assert result.accepted >= 24, "two for each kill"
    assert sum(result.killed.values()) == 12


def test_a_planted_loss_is_found() -> None:
    assert finds("lost", "embedded", seed=1)


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_to_be_planted_can_be(planted: str, tmp_path: Path) -> None:
    assert (build(tmp_path, PLANTED[planted]) / "faxbot").is_dir()
