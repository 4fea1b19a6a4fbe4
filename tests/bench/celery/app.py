"""A task that does nothing, under the promises that Warren makes.

A quorum queue, publisher confirms, acknowledged after the work, results in PostgreSQL.
"""

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend="db+" + os.environ["BENCH_DATABASE"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    result_expires=None,
    task_acks_late=True,
    task_default_queue="bench",
    task_default_queue_type="quorum",
    task_reject_on_worker_lost=True,
    worker_concurrency=2,
    worker_detect_quorum_queues=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "1")),
)


@app.task
def nothing(text):
    """As large an answer as that of Warren's no-op engine: eight numbers."""
    return [0.0] * 8
