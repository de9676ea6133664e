"""Read YAML as a person wrote it: a mistake is told with its line, and nothing is lost silently."""

from collections.abc import Hashable
from pathlib import Path

import yaml
from yaml.nodes import MappingNode

from dytrack_platform.errors import ConfigurationError

_DEEPEST = 40
"""Levels of brackets and indentation; a recipe has five, and the reader's own stack ends at some
hundreds."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses a key that stands twice."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Build a mapping whose keys are unique."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                twice = key in seen
            except TypeError:
                continue  # the parent says that it cannot be a key
            if twice:
                raise yaml.MarkedYAMLError(None, None, f"{key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Read a file.

    Raises:
        ConfigurationError: It cannot be read, is not UTF-8, or is not YAML; the message names the
            line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{path}, line {line}: byte {error.object[error.start]:#04x} is not UTF-8; save the "
            "file as UTF-8"
        ) from error
    for number, line_text in enumerate(text.splitlines(), 1):
        if line_text.strip() and "\t" in line_text[: len(line_text) - len(line_text.lstrip())]:
            raise ConfigurationError(f"{path}, line {number}: tabs cannot indent YAML; use spaces")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> object:
    """Parse a text.

    Args:
        text: The YAML.
        name: Where it is from, for messages.

    Raises:
        ConfigurationError: It is not YAML, or a key stands twice.
    """
    if _depth(text) > _DEEPEST:
        raise ConfigurationError(f"{name}: nested deeper than {_DEEPEST} levels; it is no recipe")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = (error.problem or "cannot be read").replace("\n", " ")
        raise ConfigurationError(f"{name}{where}: not valid YAML: {problem}") from error
    except yaml.YAMLError as error:
        said = str(error).replace("\n", " ")
        raise ConfigurationError(f"{name}: not valid YAML: {said}") from error
    except (ValueError, OverflowError) as error:  # a date that no calendar has, a huge number
        raise ConfigurationError(f"{name}: holds a value that is none: {error}") from error


def _depth(text: str) -> int:
    """Return how deep brackets are open at most, or lines are indented by one more each."""
    deepest = depth = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    indents: list[int] = []
    for line in text.splitlines():
        body = line.lstrip(" -")
        if not body:
            continue
        indent = len(line) - len(body)
        while indents and indents[-1] >= indent:
            indents.pop()
        indents.append(indent)
        deepest = max(deepest, len(indents), line.count("- - "))
    return deepest
