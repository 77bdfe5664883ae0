"""Which metrics an expression of PromQL asks for, and which a server has."""

import re

from prometheus_client.parser import text_string_to_metric_families

_WORDS = {"by", "on", "and", "or", "unless", "without", "ignoring", "group_left", "group_right", "bool", "offset"}


def names_in(expression: str) -> set[str]:
    """Metrics that an expression names.

    >>> sorted(names_in('sum by (a) (rate(x_total{b="c"}[5m])) / ignoring (d) y > 2 * 86400'))
    ['x_total', 'y']
    """
    rest = re.sub(r'"[^"]*"', "", expression)
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", rest)
    rest = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", rest)
    found = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", rest)
    return {each for each in found if each not in _WORDS}


def names_told(text: str) -> set[str]:
    """Metrics that a server has, also those without any sample yet."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + ending
        for family in text_string_to_metric_families(text)
        for ending in endings.get(family.type, [""])
    }
