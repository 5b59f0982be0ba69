"""The schema's history, run at start by `modelyard.core.database.migrate`."""
