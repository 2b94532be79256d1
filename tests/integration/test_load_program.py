"""The load program is believed because it finds what was planted: faults by name, and times that
are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load, selftest
from benchmarks.carrier import Arrival
from benchmarks.client import Pace
from benchmarks.outcome import Sent, Spread, Told, find_faults
from benchmarks.selftest import REPORTED_AS, Fault, Plan, differences, try_out

FAXES = 24
BUSY = 20
"""A busy machine makes things so many times slower at most; faster than they are it makes
nothing."""
FAULT_KINDS = ("lost", "duplicated", "damaged", "not_final", "failed")


@pytest.mark.parametrize(
    "fault", [Fault.NONE, Fault.REFUSED, Fault.HUNG_UP], ids=lambda it: it.name
)
def test_a_fault_of_the_answer_alone_is_no_fault_of_a_fax(fault: Fault) -> None:
    plan = Plan({5: fault, 17: fault})
    outcome = try_out(plan, FAXES, Pace(4), wait=0.3)
    assert differences(plan, outcome, FAXES) == []


def test_all_faults_together_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([]) == 0
    assert "exactly those reported" in capsys.readouterr().out


def test_a_run_that_saw_too_little_is_called_wrong() -> None:
    outcome = try_out(Plan(), FAXES, Pace(4))
    assert differences(Plan({5: Fault.TWICE}), outcome, FAXES) == [
        "1 duplicated planted, 0 reported"
    ]


def test_known_times_are_recovered() -> None:
    plan = Plan(answer_after=0.02, at_carrier_after=0.15, final_after=0.4)
    outcome = try_out(plan, 80, Pace(8), wait=5)
    assert outcome.submit_ms
    assert outcome.to_provider_ms
    assert outcome.to_final_ms
    # The answer takes 20 ms, so 8 connections make at most 400 faxes a second.
    assert 20 <= outcome.submit_ms.p50 < BUSY * 20
    assert 400 / BUSY < outcome.submit_rate <= 400
    # Counted from the answer's arrival, so a busy machine can only make them look shorter.
    assert 150 / 2 < outcome.to_provider_ms.p50 <= 151
    assert 400 / 2 < outcome.to_final_ms.p50 <= 401
    assert not outcome.faults


def test_a_paced_run_keeps_its_pace_and_counts_a_late_start_as_waiting() -> None:
    plan = Plan(answer_after=0.05)
    paced = try_out(plan, 30, Pace(4, rate=60), wait=0.1)
    assert 60 / BUSY < paced.submit_rate < 66  # unpaced, 4 connections would make 80
    # One connection carries 20 a second: offered 60, each fax waits longer than the one before.
    late = try_out(plan, 12, Pace(1, rate=60), wait=0.1)
    assert late.submit_ms
    assert late.submit_ms.longest > 300


def test_no_fax_is_started_after_the_time_is_over() -> None:
    outcome = try_out(Plan(answer_after=0.02), 10_000, Pace(2, seconds=0.5), wait=0.1)
    assert 52 / BUSY < outcome.submitted <= 52


def test_a_service_that_is_not_there_is_no_result(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a key")
    arguments = [
        "--url",
        "http://127.0.0.1:1",
        "--key-file",
        str(key),
        "--faxes",
        "3",
        "--wait",
        "0",
    ]
    assert load.main(arguments) == 1


def test_the_report_for_programs_holds_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("a key")
    arguments = [
        "--url",
        "http://127.0.0.1:1",
        "--key-file",
        str(key),
        "--faxes",
        "3",
        "--wait",
        "0",
    ]
    load.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["refused"] == {"none": 3}
    assert report["accepted"] == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_a_percentile_is_a_value_that_so_many_did_not_exceed(seconds: list[float]) -> None:
    spread = Spread.of(seconds)
    assert spread is not None
    for share, value in ((0.5, spread.p50), (0.95, spread.p95), (0.99, spread.p99)):
        at_most = sum(1 for second in seconds if round(1000 * second, 2) <= value)
        assert at_most >= share * len(seconds)
        assert value in {round(1000 * second, 2) for second in seconds}
    assert spread.p50 <= spread.p95 <= spread.p99 <= spread.longest


@given(st.dictionaries(st.integers(0, 39), st.sampled_from(sorted(REPORTED_AS)), max_size=40))
def test_any_mixture_of_faults_is_counted_exactly(planted: dict[int, Fault]) -> None:
    sent, told, arrivals = [], [], []
    for number in range(40):
        fault = planted.get(number, Fault.NONE)
        fax_id, tag, sha256 = f"f{number}", f"t{number}", f"{number:064d}"
        sent.append(Sent(fax_id, sha256, 0.0, 0.0))
        told.append(_told(fault, tag))
        arrivals += _arrivals(fault, tag, sha256)
    faults = find_faults(sent, told, arrivals)
    for kind in FAULT_KINDS:
        wanted = [
            f"f{number}" for number in sorted(planted) if REPORTED_AS[planted[number]] == kind
        ]
        assert getattr(faults, kind) == wanted


def _told(fault: Fault, tag: str) -> Told:
    if fault is Fault.FORGOTTEN:
        return Told("unknown")
    if fault in (Fault.STUCK, Fault.STUCK_SENT):
        return Told("open", [tag])
    return Told("failed" if fault is Fault.FAILED else "delivered", [tag], 1.0)


def _arrivals(fault: Fault, tag: str, sha256: str) -> list[Arrival]:
    if fault in (Fault.SWALLOWED, Fault.FORGOTTEN, Fault.STUCK, Fault.FAILED):
        return []
    first = Arrival(tag, "damaged" if fault is Fault.DAMAGED else sha256, 1.0)
    again = {Fault.TWICE: tag, Fault.TWICE_HIDDEN: "another"}
    return [first, Arrival(again[fault], sha256, 2.0)] if fault in again else [first]


def test_two_submissions_with_one_id_are_one_fax_lost() -> None:
    sent = [Sent("f1", "a", 0.0, 0.0), Sent("f1", "b", 0.0, 0.0)]
    told = [Told("delivered", ["t"], 1.0)] * 2
    faults = find_faults(sent, told, [Arrival("t", "a", 1.0)])
    assert faults.lost == ["f1"]


def test_a_converted_document_is_damaged_when_it_became_other_bytes_than_the_rest() -> None:
    sent = [Sent(f"f{number}", f"{number}", 0.0, 0.0) for number in range(3)]
    told = [Told("delivered", [f"t{number}"], 1.0) for number in range(3)]
    arrivals = [Arrival("t0", "page", 1.0), Arrival("t1", "other", 1.0), Arrival("t2", "page", 1.0)]
    assert find_faults(sent, told, arrivals, converted=True).damaged == ["f1"]
