"""From a version's name to a version that can answer: fetched, verified, tried in a process of its own, loaded."""
