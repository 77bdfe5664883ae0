"""The side of a key: the history is read with it long after the server has answered by it, so it may never change."""

from ml_assets.serving.sticky import takes_challenger

WEIGHTS = (0, 5, 25, 50, 100)


def test_the_sides_of_some_keys_are_what_they_always_were() -> None:
    sides = {
        key: [weight for weight in WEIGHTS if takes_challenger(f"courier {key}", "a", weight)] for key in (0, 1, 12, 16)
    }
    assert sides == {0: [50, 100], 1: [100], 12: [5, 25, 50, 100], 16: [25, 50, 100]}


def test_each_salt_draws_its_share_of_the_keys_and_others() -> None:
    keys = [f"{number}" for number in range(20_000)]
    drawn = [{key for key in keys if takes_challenger(key, salt, 25)} for salt in ("a", "b")]
    assert all(abs(len(each) - 5000) < 200 for each in drawn)
    assert abs(len(drawn[0] & drawn[1]) - 1250) < 150
