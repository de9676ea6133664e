"""A recipe's text: every mistake has its line, and nothing is taken without a word."""

import contextlib

import pytest

from dytrack_platform.config import load
from dytrack_platform.errors import ConfigurationError

GOOD = "name: a\nmodel:\n  variant: test\ntrain:\n  epochs: 2\n"


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD + "train:\n  epochs: 3\n", r"recipe.yaml, line 6, column 1: .*train stands twice"),
        ("name: a\ntrain:\n  epochs: 2\n  epochs: 3\n", r"line 4, column 3: .*epochs stands twice"),
        ("name: a\ntrain:\n\tepochs: 2\n", r"line 3: tabs cannot indent YAML; use spaces"),
        (b"name: a\n# caf\xe9\n", r"line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("name: a\ntrain:\n", r"recipe.yaml: train: has no keys"),
        ("name: [a\n", r"line 2, column 1: not valid YAML"),
        ("name: a: b\n", r"line 1, column 8: not valid YAML"),
        ("name: !!python/object:os.system a\n", r"line 1, column 7: not valid YAML"),
        ("name: 2026-13-45\n", r"holds a value that is none"),
        ("? [a]\n: b\n", r"line 1, column 3: not valid YAML"),
        ("[" * 5000, r"nested deeper than 40 levels"),
        ("a: " + "- " * 3000, r"recipe.yaml"),
        ("\n".join(" " * n + "k:" for n in range(3000)), r"nested deeper than 40 levels"),
        ("", r"must hold keys and values"),
        ("\x00", r"not valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(written, content, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        load(written(content))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(written):
    assert load(written(b"\xef\xbb\xbf" + GOOD.encode())).train.epochs == 2


def test_every_part_of_a_recipe_is_refused_or_read(written):
    said = []
    for length in range(0, len(GOOD), 3):
        with contextlib.suppress(ConfigurationError):
            load(written(GOOD[:length]))
            continue
        with pytest.raises(ConfigurationError) as caught:
            load(written(GOOD[:length]))
        said.append(str(caught.value))
    assert said
    assert not any("\n" in sentence for sentence in said)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(ConfigurationError, match="no such recipe"):
        load(tmp_path)
