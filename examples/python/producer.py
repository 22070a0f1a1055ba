"""Sends a task from Python and reads its result, with Kafka and Redis only, without YADTQ.

    pip install -r examples/python/requirements.txt
    cargo run --example worker           # in another terminal
    python examples/python/producer.py

YADTQ_KAFKA and YADTQ_REDIS name the servers; the default is localhost.
"""

import json
import os
import sys
import time
import uuid

import redis
from confluent_kafka import Producer

namespace = os.environ.get("YADTQ_NAMESPACE", "yadtq")
producer = Producer({
    "bootstrap.servers": os.environ.get("YADTQ_KAFKA", "localhost:9092"),
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
})
results = redis.Redis.from_url(os.environ.get("YADTQ_REDIS", "redis://localhost:6379"), decode_responses=True)

task = {"task-id": str(uuid.uuid4()), "task": "add", "args": [1, 2]}
refused = []
producer.produce(
    f"{namespace}.default",
    key=task["task-id"],
    value=json.dumps(task),
    on_delivery=lambda error, _: refused.append(error) if error else None,
)
if producer.flush(30) or refused:
    sys.exit(f"Kafka did not acknowledge the task: {refused or 'no answer'}")
print("sent", json.dumps(task))

# The result of a task stays in Redis for a day. Poll slowly: Rust clients are notified of results instead.
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    state = results.hgetall(f"{namespace}:task:{{{task['task-id']}}}")
    if state.get("status") in ("success", "failure", "revoked"):
        print("status", state["status"], "result", json.loads(state.get("result", "null")))
        sys.exit(0 if state["status"] == "success" else 1)
    time.sleep(0.1)
sys.exit("no result within 60 s: does a worker run?")
