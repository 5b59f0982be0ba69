"""The gateway: takes training jobs, rings workers for them, and keeps what becomes of them. Issues tokens."""
