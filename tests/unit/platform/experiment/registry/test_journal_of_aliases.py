"""Where a rollback leads to, from journals that were made by hand."""

from dytrack_platform.experiment.registry.promotion import Entry, previous


def moves(*rows):
    return [
        Entry(at=f"{k}", by="me", kind=kind, alias=alias, before=before, after=after, why="")
        for k, (kind, alias, before, after) in enumerate(rows)
    ]


def test_a_rollback_leads_to_the_version_before_and_twice_to_the_one_before_that():
    journal = moves(
        ("promoted", "champion", None, 1),
        ("promoted", "fast", None, 2),
        ("refused", "champion", 1, 2),
        ("promoted", "champion", 1, 3),
        ("forced", "champion", 3, 5),
    )
    assert previous(journal, "champion") == 3
    journal += moves(("rolled back", "champion", 5, 3))
    assert previous(journal, "champion") == 1
    journal += moves(("rolled back", "champion", 3, 1))
    assert previous(journal, "champion") is None
    journal += moves(("promoted", "champion", 1, 5))
    assert previous(journal, "champion") == 1


def test_an_alias_that_was_there_before_the_journal_is_gone_back_to():
    assert previous(moves(("promoted", "champion", 7, 8)), "champion") == 7
    assert previous([], "champion") is None
    assert previous(moves(("lost", "champion", 1, 2)), "champion") is None
