import json
from dataclasses import replace

import numpy as np
import pytest

from ml_pipeline.learners import Shape
from ml_pipeline.search import CHOICES, CLEARLY, search_shape
from tests.ml_pipeline.test_backtest import EFFORT, PLAN, lively_shop, shop, with_other_outcomes

N_TRIALS = 3


@pytest.fixture(scope="module")
def observations():
    return lively_shop()


@pytest.fixture(scope="module")
def search(observations):
    return search_shape(observations, PLAN, EFFORT, N_TRIALS)


def test_the_default_is_tried_first_and_each_trial_is_one_of_the_choices(search):
    assert search.trials[0][0] == EFFORT.shape == Shape()
    assert len(search.trials) == 1 + N_TRIALS
    for shape, _ in search.trials:
        assert all(getattr(shape, name) in options for name, options in CHOICES.items())


def test_another_shape_replaces_the_default_only_where_it_is_clearly_better(search):
    best, value = max(search.trials, key=lambda trial: trial[1])
    assert search.chosen == (best if value > search.trials[0][1] + CLEARLY else Shape())


def test_the_same_seed_tries_the_same_and_another_seed_others(observations, search):
    assert search_shape(observations, PLAN, EFFORT, N_TRIALS) == search
    other = search_shape(observations, PLAN, replace(EFFORT, seed=1), N_TRIALS)
    assert [shape for shape, _ in other.trials[1:]] != [shape for shape, _ in search.trials[1:]]


def test_no_judged_window_is_looked_at(observations, search):
    """Other outcomes from the calibration block on change nothing that was tried."""
    first = observations.on(PLAN.calibration[0]).start
    changed = with_other_outcomes(observations, slice(first, len(observations)))
    changed.features[first:] = 0
    assert search_shape(changed, PLAN, EFFORT, N_TRIALS) == search


def test_without_trials_or_without_anything_to_learn_the_default_stays(observations):
    assert search_shape(observations, PLAN, EFFORT, 0).trials == ()
    few = shop(lambda rng, n: np.full(n, 0.05), n_customers=8)
    silent = replace(observations, spend={name: np.zeros(len(observations)) for name in observations.spend})
    for nothing in (few, silent):
        search = search_shape(nothing, PLAN, EFFORT, N_TRIALS)
        assert (search.trials, search.chosen) == ((), Shape())


def test_what_was_tried_is_plain_json(search):
    content = json.loads(json.dumps(search.as_json(), allow_nan=False))
    assert len(content["trials"]) == len(search.trials)
    assert content["chosen"]["leaves"] == search.chosen.leaves
