"""At a search's budget the default sampler beats chance, on a table of real trials.

``surrogate.json`` is written by ``python -m tests.benchmarks.search_surrogate``.
"""

import json
from pathlib import Path

import numpy as np
import optuna
import pytest

from dytrack_platform.config import SearchConfig
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.search.space import Range
from dytrack_platform.experiment.search.trials.sampler import distribution, make_sampler

TABLE = Path(__file__).with_name("surrogate.json")
TRIALS, SEEDS, WIDTH = 24, 20, 0.2


class Surrogate:
    """Between real trials a value is the mean of theirs, weighted by nearness."""

    def __init__(self):
        table = json.loads(TABLE.read_text())
        self.ranges = {key: Range(**values) for key, values in table["ranges"].items()}
        self.places = np.array([self.place(row["numbers"]) for row in table["rows"]])
        self.values = np.array([row["hypervolume"] for row in table["rows"]])

    def place(self, numbers):
        found = []
        for key, limits in self.ranges.items():
            low, high, value = limits.low, limits.high, numbers[key]
            if limits.log:
                low, high, value = np.log([low, high, value])
            if limits.ordered:
                found.append((value - low) / (high - low))
            else:  # each value of a choice is as far from every other
                found += [0.5 * (value == one) for one in range(int(low), int(high) + 1)]
        return np.array(found)

    def __call__(self, numbers):
        distances = ((self.places - self.place(numbers)) ** 2).sum(axis=1)
        weights = np.exp(-0.5 * distances / WIDTH**2) + 1e-12
        return float(weights @ self.values / weights.sum())


def best_of(kind, seed, surrogate):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = SearchConfig(sampler=kind, trials=TRIALS, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(search))
    space = {key: distribution(limits) for key, limits in surrogate.ranges.items()}
    for _ in range(TRIALS):
        asked = study.ask(fixed_distributions=space)
        study.tell(asked, surrogate(asked.params))
    return study.best_value


def test_a_search_that_goes_on_does_not_draw_its_first_trials_again():
    drawn = []
    for known in (0, 5):
        search = SearchConfig(trials=24, sampler="random")
        study = optuna.create_study(sampler=make_sampler(search, known))
        asked = (study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}) for _ in range(5))
        drawn.append({trial.params["x"] for trial in asked})
    assert not drawn[0] & drawn[1]


@pytest.mark.slow
def test_tpe_beats_random_at_an_equal_budget():
    surrogate = Surrogate()
    found = {
        kind: np.array([best_of(kind, seed, surrogate) for seed in range(SEEDS)])
        for kind in ("tpe", "random")
    }
    top = surrogate.values.max()
    means = {kind: (values / top).mean().round(3) for kind, values in found.items()}
    assert means["tpe"] > means["random"], means


def test_the_population_method_is_for_many_trials_only():
    small, large = (make_sampler(SearchConfig(trials=count)) for count in (24, 200))
    assert isinstance(small, optuna.samplers.TPESampler)
    assert isinstance(large, optuna.samplers.NSGAIISampler)


def test_the_gaussian_process_says_what_it_needs(monkeypatch):
    assert isinstance(make_sampler(SearchConfig(sampler="gp")), optuna.samplers.GPSampler)
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(ConfigurationError, match=r"search\.sampler: gp needs scipy"):
        make_sampler(SearchConfig(sampler="gp"))
