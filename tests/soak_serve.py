#!/usr/bin/env python3
"""Many clients stream from one server for a while, some of them leaving in the middle; run by hand, not by ctest.
    soak_serve.py PROGRAM [--seconds 600] [--clients 200] [--model DIR] [--sessions 32]
Fails if a client that stays gets an error or a text other than its serial run's, if the server's memory grows after the
first third of the time (by more than a twentieth), or if anything is left running at the end."""
import argparse
import json
import os
import random
import socket
import tempfile
import threading
import time

from serve_client import NEVER_END, STORY, Server, events, join, make_model, together


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--model", help="a model with the tokenizer bytes; none: a small one is trained")
    return parser.parse_args()


def make_requests():
    """Different enough to share beginnings in the cache, and to be of very different lengths."""
    chance = random.Random(1)
    requests = []
    for i in range(40):
        start = chance.choice((0, 0, 17, 40))
        text = (STORY * 8)[start:start + chance.choice((1, 5, 30, 60, 200, 500))]
        fields = {"max_tokens": chance.choice((1, 10, 60, 200, 400)), "seed": i, "temperature": chance.choice((0, 0.8, 1.5)),
                  "logit_bias": NEVER_END}
        if i % 5 == 0:
            fields["stop"] = ["letter", "🙂 S"]
        if i % 7 == 0:
            fields["logprobs"] = 2
        requests.append((text, fields))
    return requests


class Soak:
    def __init__(self, server, requests, arguments):
        self.server, self.requests, self.arguments = server, requests, arguments
        self.want = [join([{"choices": [server.complete(text, **fields)["choices"][0]]}])[0] for text, fields in requests]
        self.lock = threading.Lock()
        self.finished = self.left = 0
        self.wrong = []
        self.memory = []
        self.end = time.monotonic() + arguments.seconds

    def stay(self, index):
        text, fields = self.requests[index]
        connection, response = self.server.open_stream(text, **fields)
        got = join(events(response))[0]
        connection.close()
        with self.lock:
            self.finished += 1
            if got != self.want[index]:
                self.wrong.append("request %d: %r instead of %r" % (index, got, self.want[index]))

    def leave(self, index, chance):
        """Goes before, in, or at the end of the answer; politely or not."""
        text, fields = self.requests[index]
        connection = socket.create_connection((self.server.host, self.server.port), 60)
        stream = chance.random() < 0.7
        body = json.dumps({"prompt": text, "stream": stream, **fields, "max_tokens": 2000}).encode()
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) +
                           body[:chance.choice((len(body), len(body), len(body) // 2))])
        connection.settimeout(chance.choice((0.001, 0.1, 1)))
        try:
            connection.recv(chance.choice((1, 1000, 20000)))
        except socket.timeout:
            pass
        if chance.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        with self.lock:
            self.left += 1

    def client(self, number):
        chance = random.Random(number)
        while time.monotonic() < self.end and not self.wrong:
            index = chance.randrange(len(self.requests))
            try:
                if chance.random() < 1 / 3:
                    self.leave(index, chance)
                else:
                    self.stay(index)
            except Exception as error:  # any of them is a failure of the server
                with self.lock:
                    self.wrong.append("request %d: %s: %s" % (index, type(error).__name__, error))

    def watch(self):
        begin = time.monotonic()
        while time.monotonic() < self.end:
            time.sleep(min(2, self.arguments.seconds / 30))
            figures = self.server.metrics()
            self.memory.append((time.monotonic() - begin, figures["polysketch_resident_bytes"]))
            print("%6.0f s  %7d finished  %6d left  %6.1f MiB  %3d running  %3d waiting" %
                  (self.memory[-1][0], self.finished, self.left, self.memory[-1][1] / 2**20,
                   figures["polysketch_requests_running"], figures["polysketch_requests_queued"]), flush=True)

    def growth(self):
        """Of the largest memory in the last third over that in the second one."""
        time_of = self.arguments.seconds
        second = max(size for at, size in self.memory if time_of / 3 <= at < time_of * 2 / 3)
        return max(size for at, size in self.memory if at >= time_of * 2 / 3) / second - 1

    def run(self):
        together([self.watch] + [lambda n=n: self.client(n) for n in range(self.arguments.clients)])
        self.server.wait_for("requests_running", 0, 60)
        self.server.wait_for("requests_queued", 0)
        figures = self.server.metrics()
        growth = self.growth()
        print("%d streams finished, %d clients left, %d cancelled; memory %+.1f %% in the last third; %d steps, %d tokens" %
              (self.finished, self.left, figures["polysketch_cancelled_total"], 100 * growth,
               figures["polysketch_steps_total"], figures["polysketch_completion_tokens_total"]))
        for line in self.wrong[:10]:
            print(line)
        return not self.wrong and growth < 0.05


def main():
    arguments = read_arguments()
    program = os.path.abspath(arguments.program)
    with tempfile.TemporaryDirectory(prefix="psk-soak.") as folder:
        model = arguments.model or make_model(program, folder)
        with Server(program, model, "--sessions", str(arguments.sessions), "--queue", str(arguments.clients),
                    "--cache", "64M") as server:
            good = Soak(server, make_requests(), arguments).run()
            code = server.stop()
    print("good" if good and code == 0 else "FAILED (the server's exit code: %d)" % code)
    raise SystemExit(0 if good and code == 0 else 1)


if __name__ == "__main__":
    main()
