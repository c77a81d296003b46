"""A user's own script, run with the session that tempo.toml describes."""
