"""The table of outcomes is total, and the page about failures agrees with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.outcomes import (
    FACTS,
    Facts,
    FailureKind,
    Fault,
    Interruption,
    Outcome,
    RetryLimit,
    classify_failure,
    ending_of,
    needs_name,
)
from hpcsweep.spec.models import Retries

PAGE = Path(__file__).parents[2] / "hpcsweep/docs/failures.md"
MEMBERS: list[Any] = [*Outcome, *FailureKind, *Interruption]


def test_every_member_has_its_facts_and_none_is_there_that_does_not_exist() -> None:
    assert set(FACTS) == set(MEMBERS)
    assert len(FACTS) == len(Outcome) + len(FailureKind) + len(Interruption)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_the_facts_of_one_member_agree_with_each_other(member: Any) -> None:
    facts = FACTS[member]
    assert facts.label
    assert facts.next_step
    assert facts.ended_well == (member in (Outcome.COMPLETED, Outcome.STOPPED))
    assert facts.counts_without_progress == (RetryLimit.INFRASTRUCTURE in facts.retry_limits)
    assert bool(facts.message) == isinstance(member, Interruption)
    if not isinstance(member, Interruption):
        assert facts.retry_limits == ()  # it is retried no more
    if facts.fault is Fault.CONFIGURATION:
        assert not facts.counts_without_progress
        assert not facts.suspects_node


def test_two_ways_to_end_of_one_kind_have_different_labels() -> None:
    for kind in (Outcome, FailureKind, Interruption):
        labels = [FACTS[member].label for member in kind]
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_failure_is_classified_exactly_where_the_run_did_not_end_well(outcome: Outcome) -> None:
    kind = classify_failure(outcome, None, "")
    assert (kind is None) == FACTS[outcome].ended_well
    if kind is not None:
        assert FACTS[kind].fault is FACTS[outcome].fault
        assert FACTS[kind].needs_name is FACTS[outcome].needs_name


def test_only_interruptions_that_are_nobodys_progress_are_not_counted() -> None:
    uncounted = {why for why in Interruption if not FACTS[why].retry_limits}
    bounded = {Interruption.OUT_OF_MEMORY}  # by the largest memory that a run may have
    assert uncounted - bounded == {
        Interruption.NEVER_STARTED,
        Interruption.NOT_STARTED,
        Interruption.SWEEP_STOPPED,
    }


def test_only_what_its_owner_cancelled_needs_its_name_to_be_retried() -> None:
    assert [outcome for outcome in (*Outcome, None) if needs_name(outcome)] == [Outcome.CANCELLED]


def test_the_limits_are_the_keys_of_retries() -> None:
    assert {limit.value for limit in RetryLimit} <= set(Retries.model_fields)


def test_an_ending_is_read_back_by_its_value() -> None:
    assert all(ending_of(outcome.value, final=True) is outcome for outcome in Outcome)
    assert all(ending_of(why.value, final=False) is why for why in Interruption)


def table_of_the_page() -> list[list[str]]:
    """Outcome, fault and next step of each row of the page's first table."""
    lines = PAGE.read_text().split("## Outcomes of an attempt", 1)[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows[1:] if len(row) == 3 and not set(row[0]) <= set("- ")]


def documented(facts: Facts) -> list[str]:
    limits = " and ".join(f"`retries.{limit.value}`" for limit in facts.retry_limits)
    return [facts.label, facts.fault.value, facts.next_step + (f" ({limits})" if limits else "")]


def test_the_page_about_failures_says_of_each_what_the_table_says() -> None:
    rows = table_of_the_page()
    expected = {str(documented(FACTS[member])) for member in (*Outcome, *Interruption)}
    assert {str(row) for row in rows} == expected
    assert len(rows) == len(expected)
