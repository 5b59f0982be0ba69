"""The training workers: Celery takes the doorbell, a subprocess trains, the gateway hears of everything."""
