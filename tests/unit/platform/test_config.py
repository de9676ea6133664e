import re
import subprocess
import sys

import pytest

from dytrack_model.config import Bounds
from dytrack_platform.config import dump, flatten, load, parse_override, resolve, to_dict
from dytrack_platform.config.recipes import RENAMED
from dytrack_platform.errors import ConfigurationError

SPACE = {"model.exits": {"placements": {"count": [1, 2]}}, "train.ema": {"choice": [0.9, 0.99]}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"exits": (8, 4)}}, r"^model\.exits: must rise strictly, got \(8, 4\)$"),
        ({"model": {"widht": 3}}, r"^model\.widht: no such key; did you mean model\.width\?"),
        ({"trian": {}}, r"^trian: no such key; did you mean train\?"),
        ({"model": {"width": "abc"}}, r"^model\.width: input should be a valid integer"),
        ({"model": {"variant": "huge"}}, r"^model\.variant: must be one of test, tiny"),
        ({"model": 3}, "^model: must be a mapping, got 3"),
        ({"data": {"train": [{"path": ""}]}}, r"^data\.train\.0\.path: must name"),
        ({"data": {"train": [{"wieght": 1}]}}, r"^data\.train\.wieght: no such key"),
        ({"train": {"batch_size": 10, "workers": 4}}, r"^train\.batch_size: must be a multiple"),
        (
            {"train": {"storage": "s3://b/runs?endpoint_override=localhost:9000"}},
            r"^train\.storage: takes no options .* give s3://b/runs and set AWS_ENDPOINT_URL_S3",
        ),
        (
            {"data": {"resident": [{"dataset": "video", "root": ""}]}},
            r"^data\.resident\.0\.root: must name a folder",
        ),
        (
            {"data": {"resident": [{"dataset": "video", "root": "a", "longest_side": 8}]}},
            r"^data\.resident\.0\.longest_side: must be at least 32, got 8",
        ),
        (
            {"data": {"resident": [{"dataset": "video", "root": "a", "masks": True}]}},
            r"^data\.resident\.0\.masks: are read of dataset coco only, got 'video'",
        ),
        (
            {"data": {"overlay": {"hidden": 2}}},
            r"^data\.overlay\.hidden: must lie in \[0, 1\], got 2",
        ),
        ({"data": {"overlay": {"turn": -1}}}, r"^data\.overlay\.turn: must not be negative"),
        ({"train": {"keep_checkpoints": 1}}, r"^train\.keep_checkpoints: must be at least 2"),
        ({"model": {"iou_token": "reader"}}, "^model.iou_token: reader is now called read_only$"),
        ({"train": {"schedule": "linear"}}, r"^train\.schedule: input should be 'step' or"),
        ({"loss": {"giou": -1}}, r"^loss\.giou: must not be negative"),
        ({"name": "../out"}, "^name: must be letters, digits"),
        ({"seed": -1}, "^seed: must not be negative"),
    ],
)
def test_a_mistake_is_named_by_its_dotted_key(values, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve({"name": "x", **values})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_an_older_recipe_is_refused_with_its_new_name(old, new):
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(f'{old}: is now called {new}')}$"):
        resolve({"name": "x"}, {old: 1})
    section, _, key = new.partition(".")
    assert hasattr(getattr(resolve({"name": "x"}), section), key)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "message"),
    [
        (Bounds(low=1), (1, 9), (0, float("nan")), "be at least 1"),
        (Bounds(low=0), (0,), (-1e-9,), "not be negative"),
        (Bounds(above=0), (1e-9,), (0,), "be positive"),
        (Bounds(low=0, high=1), (0, 1), (-0.1, 1.1), "lie in [0, 1]"),
        (Bounds(low=0, below=1), (0, 0.9), (1,), "lie in [0, 1)"),
        (Bounds(above=0, below=1), (0.1,), (0, 1), "lie in (0, 1)"),
        (Bounds(multiple=8), (8, 16), (0, -8, 12, float("nan")), "be a positive multiple of 8"),
    ],
)
def test_bounds_hold_and_say_what_they_hold(bounds, inside, outside, message):
    assert all(bounds.hold(value) for value in inside)
    assert not any(bounds.hold(value) for value in outside)
    assert str(bounds) == message


def test_a_missing_name_is_asked_for():
    with pytest.raises(ConfigurationError, match=r"^name: is required$"):
        resolve({})


def test_a_variant_brings_its_values_and_other_keys_change_them():
    config = resolve({"name": "x", "model": {"variant": "test", "recycling": "add"}})
    assert (config.model.width, config.model.recycling) == (64, "add")


def test_a_backbone_alone_brings_its_shape():
    model = resolve({"name": "x"}, {"model.backbone": "vit_small_patch14_dinov2"}).model
    assert (model.width, model.heads, model.patch, model.depth) == (384, 6, 14, 12)
    assert (model.template_size, model.search_size) == (112, 224)
    model = resolve({"name": "x", "model": {"backbone": "deit_tiny_patch16_224", "depth": 6}}).model
    assert (model.depth, model.exits) == (6, (1, 3, 6))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"backbone": "vit_smal_patch14_dinov2"}, "did you mean vit_small_patch14_dinov2"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "no plain vision transformer"),
        ({"backbone": 3}, "timm has no model '3'"),
    ],
)
def test_a_backbone_that_timm_does_not_have_is_refused_by_its_key(model, message):
    with pytest.raises(ConfigurationError, match=rf"^model\.backbone: .*{message}"):
        resolve({"name": "x", "model": model})


@pytest.mark.parametrize("value", ["abc", 0, -16])
def test_a_wrong_size_beside_a_backbone_is_named(value):
    with pytest.raises(ConfigurationError, match=r"^model\.(patch: |.*multiple of patch)"):
        resolve({"name": "x", "model": {"backbone": "vit_tiny_patch16_224", "patch": value}})


def test_a_recipe_without_a_backbone_does_not_wait_for_torch():
    code = "import sys; from dytrack_platform.config import resolve; resolve({'name': 'x'}); "
    code += "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_overrides_use_the_same_keys_and_are_checked():
    config = resolve({"name": "x"}, {"train.epochs": 3, "model.variant": "small"})
    assert (config.train.epochs, config.model.width) == (3, 384)
    with pytest.raises(ConfigurationError, match=r"^train\.epochs: must be at least 1"):
        resolve({"name": "x"}, {"train.epochs": 0})
    with pytest.raises(ConfigurationError, match="has no keys below it"):
        resolve({"name": "x"}, {"name.first": 1})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        ("train.head_lr=1.0e-4", ("train.head_lr", 1e-4)),
        ("model.exits=[2, 6, 12]", ("model.exits", [2, 6, 12])),
        ("train.init_from=", ("train.init_from", None)),
    ],
)
def test_an_override_is_read_as_yaml(text, parsed):
    assert parse_override(text) == parsed


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.head_lr=1e-4", 1e-4),
        ("train.epochs=1e1", 10),
        ("name=1e5", "1e5"),
        ("name='2024'", "2024"),
        ("train.gpu=yes", True),
    ],
)
def test_a_value_is_read_as_its_key_wants_it(override, value):
    key, parsed = parse_override(override)
    found = resolve({"name": "x"}, {key: parsed})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("name=2024", r"name: must be text, got 2024; put it in quotes"),
        ("name=yes", r"name: must be text, got True; put it in quotes"),
        ("train.epochs=true", r"train\.epochs: must be a number, got true"),
        ("train.head_lr=.inf", r"train\.head_lr: must be a finite number, got inf"),
        ("loss.giou=.inf", r"loss\.giou: must be a finite number"),
        ("data.train=[{path: a, weight: .nan}]", r"data\.train\.0\.weight: must be a finite"),
        ("model.variant=[1]", r"model\.variant: must be one of .*, got \[1\]"),
        ("model.variant={a: 1}", r"model\.variant: must be one of"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(override, sentence):
    with pytest.raises(ConfigurationError, match=f"^{sentence}"):
        resolve({"name": "x"}, dict([parse_override(override)]))


@pytest.mark.parametrize("text", ["train.epochs", "=3", "model.exits=[1,"])
def test_a_malformed_override_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_override(text)


def test_a_recipe_survives_a_dump(tmp_path):
    config = resolve({"name": "x", "model": {"variant": "base"}, "search": {"space": SPACE}})
    (tmp_path / "r.yaml").write_text(dump(config))
    assert load(tmp_path / "r.yaml") == config
    assert flatten(to_dict(config))["model.width"] == 768


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "not valid YAML"), ("- 1", "must hold keys and values"), (None, "no such recipe")],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        load(path)
