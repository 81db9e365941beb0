#!/usr/bin/env python3
"""polysketch serve while it runs: clients that leave or do not read, figures, the page, the log, its end."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from serve_case import GREEDY, LONG, OPTIONS, PLACE, PROGRAM, WithServer, main
from serve_client import NEVER_END, Server, events, join

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "server.md")


class Cancel(WithServer):
    options = ["--sessions", "1", "--queue", "4", "--max-tokens", "500M"]

    def start_long(self, stream=True):
        """A request that runs on and on: its connection, once it is running."""
        before = self.server.metrics()["polysketch_completions_total"]
        connection = self.server.connect()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "The", "stream": stream, **LONG}))
        self.server.wait_for("completions_running", 1)
        self.assertEqual(self.server.metrics()["polysketch_completions_total"], before)
        return connection

    def close(self, connection):
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()

    def test_running(self):
        for stream in (True, False):
            cancelled = self.server.metrics()["polysketch_cancelled_total"]
            connection = self.start_long(stream)
            if stream:
                connection.getresponse().readline()
            self.close(connection)
            self.server.wait_for("requests_running", 0)
            self.assertEqual(self.server.metrics()["polysketch_cancelled_total"], cancelled + 1)
            self.assertEqual(self.server.text("The caf", max_tokens=8, **GREEDY), "é 🙂 ")

    def test_queued(self):
        fields = {"max_tokens": 3000, "temperature": 1, "seed": 4, "logit_bias": NEVER_END}
        want = self.server.text("It", **fields)
        for stream in (True, False):
            hold = self.start_long()
            connection, response = None, None
            # the one to be watched waits behind `hold`, the ones that leave wait before and behind it
            leaving = [self.server.connect() for _ in range(2)]
            leaving[0].request("POST", "/v1/completions", json.dumps({"prompt": "a", "stream": stream, **LONG}))
            self.server.wait_for("requests_queued", 1)
            connection = self.server.connect()
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "It", "stream": True, **fields}))
            self.server.wait_for("requests_queued", 2)
            leaving[1].request("POST", "/v1/completions", json.dumps({"prompt": "b", "stream": stream, **LONG}))
            self.server.wait_for("requests_queued", 3)
            for left in leaving:
                self.close(left)
            self.server.wait_for("requests_queued", 1, 5)
            self.assertEqual(self.server.metrics()["polysketch_completions_running"], 1)  # hold goes on
            self.close(hold)
            response = connection.getresponse()
            self.assertEqual(join(events(response))[0]["text"], want)
            connection.close()
            self.server.wait_for("requests_running", 0)

    def test_leaving_others_alone(self):
        fields = {"max_tokens": 4000, "temperature": 1, "seed": 4, "logit_bias": NEVER_END}
        with Server(PROGRAM, PLACE["model"], *OPTIONS) as server:
            want = server.text("It", **fields)
            streams = [server.open_stream("It", **fields) for _ in range(3)]
            victims = [server.open_stream("The", **LONG) for _ in range(6)]
            for i, (connection, response) in enumerate(victims):
                for _ in range(20 * i):
                    response.readline()
                response.close()
                connection.close()
            for _, response in streams:
                self.assertEqual(join(events(response))[0]["text"], want)
            server.wait_for("requests_running", 0, 5)

    def test_full_queue(self):
        hold = self.start_long()
        waiting = []
        for i in range(4):
            waiting.append(self.server.connect())
            waiting[-1].request("POST", "/v1/completions", json.dumps({"prompt": "The caf", "max_tokens": 8, **GREEDY}))
            self.server.wait_for("requests_queued", i + 1)
        status, headers, data = self.server.request("POST", "/v1/completions", {"prompt": "a"})
        error = json.loads(data)["error"]
        self.assertEqual((status, error["type"], error["code"]), (429, "rate_limit_error", "queue_full"))
        self.assertIn("4 requests", error["message"])
        self.assertTrue(headers["Retry-After"])
        self.close(hold)
        for connection in waiting:
            self.assertEqual(json.load(connection.getresponse())["choices"][0]["text"], "é 🙂 ")
            connection.close()

    @staticmethod
    def open_slow_reader(server):
        """The socket of a client that asks for a long stream and reads none of it."""
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((server.host, server.port))
        body = json.dumps({"prompt": "The", "stream": True, **LONG}).encode()
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return slow

    def test_slow_reader(self):
        """A client that does not read holds up itself alone."""
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--idle-seconds", "3600") as server:
            with self.open_slow_reader(server):
                server.wait_for("completions_running", 1)
                self.assertEqual(server.text("The caf", max_tokens=8, **GREEDY), "é 🙂 ")
                server.wait_for("completions_running", 1)  # a reply comes before the count of it is taken back
                self.wait_until_paused(server)
            server.wait_for("requests_running", 0)

    def test_slow_reader_is_cut_off(self):
        """The same, and not for ever: its completion ends though it stays connected."""
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--idle-seconds", "2") as server:
            with self.open_slow_reader(server):
                server.wait_for("cancelled_total", 1)
                server.wait_for("requests_running", 0)

    def wait_until_paused(self, server):
        """No steps, though a completion is running: what waits for its client is bounded."""
        steps = -1
        while steps != server.metrics()["polysketch_steps_total"]:
            figures = server.metrics()
            steps = figures["polysketch_steps_total"]
            self.assertEqual(figures["polysketch_completions_running"], 1)
            self.assertLess(steps, 1_000_000)
            time.sleep(0.5)

    def test_time_limit(self):
        with Server(PROGRAM, PLACE["model"], *self.options, "--request-seconds", "1") as server:
            reply = server.complete("The", **LONG)
            self.assertEqual(reply["choices"][0]["finish_reason"], "length")
            status, answer = server.json("POST", "/v1/completions", {"prompt": [65] * 1000000})
            self.assertEqual((status, answer["error"]["code"]), (503, "time_limit"))
            self.assertIn("before its text had begun", answer["error"]["message"])
            status, answer = server.json("POST", "/v1/completions", {"prompt": [[84], [65] * 1000000], "max_tokens": 1})
            self.assertEqual(status, 503)
            self.assertIn("before all of its texts had begun", answer["error"]["message"])


class Running(WithServer):
    def test_health_and_metrics(self):
        self.assertEqual(self.server.json("GET", "/health"), (200, {"status": "ok"}))
        self.server.complete("The caf", max_tokens=5)
        status, headers, text = self.server.request("GET", "/metrics")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4"))
        names = set()
        for line in text.decode().splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) polysketch_\w+ .+|polysketch_\w+(\{\w+="[^"]+"\})? -?[0-9.e+-]+)$')
            names.add(re.match(r"(?:# \w+ )?(polysketch_\w+)", line).group(1))
        for name in ("prompt_tokens_total", "requests_queued", "resident_bytes", "first_text_seconds", "responses_total"):
            self.assertIn("polysketch_" + name, names)
        figures = self.server.metrics()
        self.assertGreater(figures["polysketch_resident_bytes"], 1e6)
        self.assertEqual(figures['polysketch_request_seconds_bucket{le="+Inf"}'], figures["polysketch_request_seconds_count"])

    def test_head(self):
        status, headers, data = self.server.request("HEAD", "/")
        self.assertEqual((status, data), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 1000)

    def test_page(self):
        status, headers, data = self.server.request("GET", "/")
        page = data.decode()
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertNotRegex(page, r'<[^>]*\b(src|href)="(?!data:)|@import|url\(|https?://')
        self.assertIn("prefers-color-scheme", page)

    def test_log(self):
        with Server(PROGRAM, PLACE["model"], *OPTIONS) as server:
            server.complete("The secret caf", max_tokens=5)
            server.json("GET", "/nowhere?x=1")
            self.assertEqual(server.stop(), 0)
            lines = sorted(map(json.loads, server.log), key=lambda line: line["status"])
        self.assertEqual([(line["method"], line["path"], line["status"]) for line in lines],
                         [("POST", "/v1/completions", 200), ("GET", "/nowhere", 404)])
        self.assertEqual((lines[0]["prompt_tokens"], lines[0]["completion_tokens"], lines[0]["client"]), (14, 5, "127.0.0.1"))
        self.assertNotIn("secret", "".join(server.log))

    def test_log_has_paths_that_are_no_text(self):
        paths = ["/caf%e9", "/%ff%fe", "/x" + "%c3%a9" * 200]
        with Server(PROGRAM, PLACE["model"], *OPTIONS) as server:
            for path in paths:
                self.assertEqual(server.json("GET", path)[0], 404)
            self.assertEqual(server.stop(), 0)
            logged = sorted(json.loads(line)["path"] for line in server.log)
        self.assertEqual(logged, ["/caf\ufffd", "/x" + "\u00e9" * 126 + "\ufffd", "/\ufffd\ufffd"])

    def test_model_folder_that_is_no_text(self):
        folder = os.path.join(os.fsencode(PLACE["folder"]), b"caf\xe9" + "\u00e9".encode() * 100)
        os.symlink(PLACE["model"], folder)
        with Server(PROGRAM, os.fsdecode(folder), *OPTIONS) as server:
            name = server.json("GET", "/v1/models")[1]["data"][0]["id"]
            self.assertEqual(name, "caf\ufffd" + "\u00e9" * 100)
            self.assertEqual(server.complete("The caf", max_tokens=1, model=name)["model"], name)

    def drain(self, number, want, **fields):
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--drain-seconds", "200") as server:
            kept = server.connect()
            kept.request("GET", "/health")
            kept.getresponse().read()
            _, response = server.open_stream("It", **fields)
            chunks = events(response)
            first = next(chunks)
            server.process.send_signal(number)
            while not any("finishing" in line for line in server.messages):
                self.assertIsNone(server.process.poll(), "ended at once")
                time.sleep(0.01)
            with self.assertRaises(OSError):
                server.request("GET", "/health")
            self.assertEqual(join([first, *chunks])[0]["text"], want)
            self.assertEqual(server.process.wait(60), 0)

    def test_drain(self):
        fields = {"max_tokens": 8000, "temperature": 1, "seed": 1, "logit_bias": NEVER_END}
        want = self.server.text("It", **fields)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                self.drain(number, want, **fields)

    def test_drain_has_an_end(self):
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--drain-seconds", "0.3") as server:
            connection, response = server.open_stream("It", **LONG)
            response.readline()
            server.process.send_signal(signal.SIGTERM)
            self.assertIn(b"shutting_down", response.read())
            self.assertEqual(server.process.wait(60), 0)

    def test_port_in_use(self):
        result = subprocess.run([PROGRAM, "serve", "--model", PLACE["model"], "--port", str(self.server.port)],
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot listen on 127.0.0.1, port %d" % self.server.port, result.stderr)

    def test_docs_name_every_field(self):
        message = self.server.json("POST", "/v1/completions", {"prompt": "a", "": 1})[1]["error"]["message"]
        fields = re.findall(r"\w+", message.split("there are", 1)[1])
        self.assertGreater(len(fields), 20)
        with open(DOCS, encoding="utf-8") as file:
            page = file.read()
        for field in fields:
            self.assertIn("| `%s` |" % field, page)

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_docs_curl_lines(self):
        with open(DOCS, encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("curl ")]
        self.assertGreater(len(lines), 5)
        for line in lines:
            line = line.replace(":8080", ":%d" % self.server.port)
            result = subprocess.run(line, shell=True, cwd=PLACE["folder"], capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, line)
            self.assertNotIn('"error"', result.stdout, line)


if __name__ == "__main__":
    main()
