#!/usr/bin/python3
"""Acts on every event of a group once, and reads those that RabbitMQ lost from the database.

usage: consumer.py AMQP-URL GROUP QUEUE      (Debian: python3-pika; `heirflow` finds its database as everywhere)
The queue is this consumer's own and durable, so events wait in it while the consumer is away.
"""
import collections
import json
import subprocess
import sys

import pika

url, group, queue = sys.argv[1:]
seen, last = collections.deque(maxlen=10000), None


def act(event):
    print(event["time"], event["type"], event["subject"], event["data"]["sequence"], flush=True)


channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
channel.exchange_declare("heirflow.news", "topic", durable=True)
channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
channel.queue_bind(queue, "heirflow.news", f"{group}.#")
for method, _, body in channel.consume(queue):
    events, sequence = [json.loads(body)], json.loads(body)["data"]["sequence"]
    if last is not None and sequence > last + 1:  # the sequence has no gaps, so something was lost
        read = ["heirflow", "news", "--json", "--group", group, "--from", str(last), "--limit", str(sequence - last - 1)]
        events[:0] = map(json.loads, subprocess.run(read, check=True, capture_output=True).stdout.splitlines())
    for event in events:
        if event["id"] not in seen:  # delivered at least once; after a lossy failover only the id is unique
            act(event)
            seen.append(event["id"])
    last = sequence
    channel.basic_ack(method.delivery_tag)
