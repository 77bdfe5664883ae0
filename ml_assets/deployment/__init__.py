"""From an approved model version to something that serves: the release, and the targets that it is brought to."""
