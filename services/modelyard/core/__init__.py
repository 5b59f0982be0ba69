"""What every service shares: errors, settings, tokens, logs, health, the server's life."""
