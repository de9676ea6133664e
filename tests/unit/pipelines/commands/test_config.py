"""dytrack config, and what is told where a recipe is missing or misspelt."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from dytrack_pipelines import recipes


def test_show_prints_what_trains_the_same(dytrack, tmp_path):
    done = dytrack("config", "show", "test", "--set", "train.epochs=7")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["train"]["epochs"] == 7
    (tmp_path / "again.yaml").write_text(done.stdout)
    again = dytrack("config", "diff", str(tmp_path / "again.yaml"), "test", "--json")
    assert json.loads(again.stdout) == {"train.epochs": [7, again_epochs()]}


def again_epochs():
    from dytrack_platform.config import load

    return load(recipes.find("test")).train.epochs


def test_show_as_json_is_the_same(dytrack):
    told = json.loads(dytrack("config", "show", "tiny", "--json").stdout)
    assert told == yaml.safe_load(dytrack("config", "show", "tiny").stdout)


def test_diff_lists_keys_of_both(dytrack):
    done = dytrack("config", "diff", "tiny", "small")
    assert done.returncode == 0
    assert "model.width" in done.stdout
    assert "model.depth" not in done.stdout
    assert "come to the same" in dytrack("config", "diff", "tiny", "tiny").stdout


def test_init_writes_a_recipe_once(dytrack, tmp_path):
    file = tmp_path / "new" / "mine.yaml"
    assert dytrack("config", "init", str(file)).returncode == 0
    assert dytrack("config", "show", str(file)).returncode == 0
    again = dytrack("config", "init", str(file))
    assert again.returncode == 2
    assert "is there already" in again.stderr
    file.write_text("spoilt")
    assert dytrack("config", "init", str(file), "--force").returncode == 0
    assert file.read_text().startswith("# A recipe")
    assert not [path for path in file.parent.iterdir() if path != file]


def test_train_alone_offers_the_recipes(dytrack):
    done = dytrack("train")
    assert done.returncode == 2
    for name in recipes.shipped():
        assert name in done.stdout
        assert recipes.purpose(name)[:30] in done.stdout


def test_a_dry_run_says_what_it_comes_to_and_writes_nothing(dytrack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--set", "data.pairs_per_epoch=64", "--set", "train.epochs=3")
    done = dytrack("train", "test", "--dry-run", *words, "--set", "train.batch_size=32")
    assert done.returncode == 0, done.stderr
    said = {
        cells[0].strip(): cells[1].strip()
        for line in done.stdout.splitlines()
        if len(cells := line.strip("│ ").split("│")) == 2
    }
    assert said["optimiser steps"] == "6"
    assert said["pairs"] == "192"
    assert said["parameters"].endswith("M")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "demmo"), "did you mean demo?"),
        (("config", "show", "zzz"), "known: base-full"),
        (("train", "demo", "--set", "train.epoch=3"), "did you mean train.epochs?"),
        (("data", "inspect", "--dataset", "gotk10", "--root", "x"), "did you mean got10k?"),
        (("trian",), "Did you mean 'train'"),
    ],
)
def test_what_was_probably_meant_is_named(dytrack, words, said):
    done = dytrack(*words)
    assert done.returncode == 2
    assert said in " ".join((done.stderr + done.stdout).replace("│", " ").split())


def test_describe_as_json_is_json_alone(dytrack):
    told = json.loads(dytrack("describe", "test", "--frames", "0", "--json").stdout)
    assert [one["depth"] for one in told["exits"]] == told["model"]["exits"] == [1, 2, 4]
    assert told["exits"][0]["milliseconds"] is None


def test_no_color_is_respected():
    environment = {name: v for name, v in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "dytrack_pipelines.cli", "config", "show", "nowhere"]

    def shown(**more):
        done = subprocess.run(
            command, env={**environment, "FORCE_COLOR": "1", **more}, capture_output=True, text=True
        )
        return done.stderr

    assert "\x1b[1;31m" in shown()
    assert "31m" not in shown(NO_COLOR="1")
