"""Gives the workers of app.py load, and prints what came of it as one JSON object.

    load.py throughput SECONDS    tasks that ended in each second, while there is always work
    load.py latency COUNT         milliseconds from sending a task to having its result, one after another
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

from app import nothing

# Tasks that are under way at most, as much as the other side has.
UNDER_WAY = 2000
# One alone waits for the confirm of each message, and is slower than the workers.
SENDERS = 4


def throughput(seconds):
    with (
        psycopg.connect(os.environ["BENCH_DATABASE"].replace("+psycopg", ""), autocommit=True) as database,
        ThreadPoolExecutor(SENDERS) as senders,
    ):

        def one(sql):
            return database.execute(sql).fetchone()[0]

        done = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"
        before, sent = one(done), 0
        end = time.time() + seconds
        while time.time() < end:
            while sent - (one(done) - before) < UNDER_WAY - 100 and time.time() < end:
                for _ in senders.map(nothing.delay, [f"text {sent + number}" for number in range(100)]):
                    sent += 1
            time.sleep(0.25)
        by_second = database.execute(
            "SELECT extract(epoch FROM date_done AT TIME ZONE 'UTC')::bigint, count(*) FROM celery_taskmeta"
            " WHERE status = 'SUCCESS' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        # What is still under way ends before anybody measures something else.
        patience = time.time() + 300
        while one(done) - before < sent and time.time() < patience:
            time.sleep(0.25)
        return {"ended": end, "by_second": by_second, "sent": sent, "done": one(done) - before}


def latency(count):
    times = []
    for number in range(count):
        start = time.perf_counter()
        nothing.delay(f"text {number}").get(interval=0.002, timeout=60)
        times.append((time.perf_counter() - start) * 1000)
    return {"milliseconds": times}


def main():
    # The first task makes tables and queues, and waits for the workers.
    nothing.delay("first").get(interval=0.1, timeout=120)
    what, size = sys.argv[1], int(sys.argv[2])
    print(json.dumps({"throughput": throughput, "latency": latency}[what](size)))


if __name__ == "__main__":
    main()
