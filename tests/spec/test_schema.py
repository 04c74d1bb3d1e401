"""The list of all keys of a sweep file."""

from __future__ import annotations

from tests.docs.spec_keys import SpecKey, spec_keys


def test_every_key_has_a_description_of_one_or_two_sentences() -> None:
    keys = spec_keys()
    assert len(keys) > 100
    odd = [
        key
        for key in keys
        if not key.description[:1].isupper() or key.description[-1] not in ".)" or len(key.description) > 160
    ]
    assert odd == []


def test_keys_have_their_type_default_and_variant() -> None:
    keys = {(key.path, key.variant): key for key in spec_keys()}
    description = "The name of the metric that the training code reports."
    assert keys["objective.metric", ""] == SpecKey("objective.metric", "", "text", "", description)
    assert keys["resources.gpus", ""][2:4] == ("integer >= 0 and <= 10000 or text", "0")
    assert keys["train.keep", ""][2:4] == ('"survivors" or "all"', '"survivors"')
    assert keys["scheduler.eta", "hyperband"][2:4] == ("integer >= 2", "3")
    assert keys["space.NAME.low", "float"][2:4] == ("number", "")
    assert keys["stop.patience", "plateau"][2:4] == ("integer", "10")
    assert {path for path, _ in keys} >= {"space.NAME.when", "cluster.simulated.nodes", "searcher.seed"}
