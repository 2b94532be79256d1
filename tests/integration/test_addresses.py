"""Where carriers call back: an address that names one attempt, carries our token, and stays as it was given."""

from __future__ import annotations

from dataclasses import replace

from faxbot import addresses
from tests.integration.site import Site


def test_the_address_of_an_attempt_is_admitted_and_no_other_attempt_is_by_its_token(
    site: Site,
) -> None:
    first, second = (site.attempt(site.sent("0044")) for _ in range(2))
    url = addresses.of_callbacks(site.runtime, first)

    assert addresses.is_ours(site.runtime, url)
    for forged in (
        url.replace(first.tag, second.tag),
        url.partition("&token=")[0],
        url[:-1],
        url + "0",
        f"{url}&token=",
        f"{url}&attempt={second.tag}",
        url.replace(first.tag, "ü"),
        f"{url.partition('?')[0]}?attempt=&token=",
    ):
        assert not addresses.is_ours(site.runtime, forged)


def test_an_address_that_names_no_attempt_is_left_to_the_carriers_own_proof(site: Site) -> None:
    assert addresses.is_ours(site.runtime, "https://fax.example.org/callbacks/phaxio")
    assert addresses.is_ours(site.runtime, "https://fax.example.org/callbacks/phaxio?token=x")


def test_an_address_stays_as_it_was_given_when_ours_changes(site: Site) -> None:
    attempt = site.attempt(site.sent("0044"))
    given = addresses.of_callbacks(site.runtime, attempt)
    config = replace(site.runtime.config, public_url="https://new.example.org/fax")
    moved = replace(site.runtime, config=config)
    came = given.replace(site.runtime.config.base_url, config.base_url)

    assert came != given
    assert addresses.given(moved, came) == given
    assert addresses.given(moved, "https://new.example.org/fax/callbacks/x") == (
        "https://new.example.org/fax/callbacks/x"
    )
