"""Paths and addresses with wildcards."""

import re


def fixed_part(uri: str) -> str:
    """The part of a path or address before its first wildcard, up to a slash.

    >>> fixed_part("/data/orders/*.parquet")
    '/data/orders'
    """
    return re.split(r"[*?\[]", uri, maxsplit=1)[0].rpartition("/")[0]


def matches(key: str, pattern: str) -> bool:
    """Whether an object's key matches, as a path would: `*` stays within a folder, `**/` is any number of folders, and
    names that begin with a dot or an underscore are nobody's batches."""
    if key.rsplit("/", 1)[-1].startswith((".", "_")):
        return False
    pieces = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    regex = "".join(pieces.get(each, re.escape(each)) for each in re.split(r"(\*\*/|\*|\?)", pattern))
    return re.fullmatch(regex, key) is not None
