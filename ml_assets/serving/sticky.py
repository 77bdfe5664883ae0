"""Which side of a split answers a key: always the same one, in any process and at any time. Imports nothing heavy."""

import hashlib


def takes_challenger(key: str, salt: str, weight: int) -> bool:
    """Whether the challenger answers the requests of a key.

    Who is answered by the challenger at one weight is also at every higher one, and another salt draws others.

    Args:
        key: of the entity or request.
        salt: of the rollout.
        weight: the challenger's share of the traffic in percent.

    >>> [weight for weight in (5, 25, 50, 100) if takes_challenger("courier 16", "a", weight)]
    [25, 50, 100]
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest) * 100 < weight << 64
