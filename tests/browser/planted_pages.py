"""A good page and a bad one; test_ground.py runs this, and nobody else."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page


@pytest.fixture
def origin() -> str:
    return "http://127.0.0.1:9"


def test_a_good_page(page: Page) -> None:
    page.set_content("<p>good</p>")


def test_a_bad_page(page: Page) -> None:
    page.set_content("<script>console.error('planted')</script>")
