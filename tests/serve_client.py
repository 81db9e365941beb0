"""What the tests of `polysketch serve` share: a small model, a server process, and requests to it. Standard library alone."""
import http.client
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time

END_OF_TEXT = 256
NEVER_END = {str(END_OF_TEXT): -100}  # as logit_bias: completions go on to max_tokens
STORY = "The café 🙂 was full. It rained. 🙂 She read the letter twice, then she went home.\n"


def make_model(program, folder, seed=1, steps=600, *options):
    """Trains a byte model on STORY in `folder`; returns its path."""
    text = os.path.join(folder, "story.txt")
    with open(text, "w", encoding="utf-8") as file:
        file.write(STORY * 200)
    tokens, run = os.path.join(folder, "tokens"), os.path.join(folder, "model%d" % seed)
    if not os.path.exists(tokens):
        subprocess.run([program, "prepare", text, "--output", tokens], check=True, capture_output=True)
    subprocess.run(
        [program, "train", "--data", tokens, "--output", run, "--preset", "tiny", "--layers", "2", "--width", "32",
         "--heads", "2", "--block-size", "16", "--context", "96", "--batch-size", "4", "--eval-every", "0",
         "--steps", str(steps), "--warmup-steps", "20", "--learning-rate", "5e-3", "--seed", str(seed), "--threads", "1",
         *options],
        check=True, capture_output=True)
    return run


class Server:
    """A server on a free port; `log` collects the access log's lines."""

    def __init__(self, program, model, *options, host="127.0.0.1", environment=None):
        self.process = subprocess.Popen(
            [program, "serve", "--model", model, "--port", "0", "--threads", "1", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
        self.host, self.port, self.messages, self.log = host, None, [], []
        while self.port is None:
            line = self.process.stderr.readline()
            self.messages.append(line)
            if not line:
                raise RuntimeError("the server did not start: " + "".join(self.messages))
            found = re.search(r"listening on http://.*:(\d+) ", line)
            self.port = int(found.group(1)) if found else None
        self.readers = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.process.stdout, self.log), (self.process.stderr, self.messages))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line)

    def connect(self, timeout=120):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers, bytes)."""
        connection = self.connect(timeout)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    def json(self, method, path, body=None, headers=None):
        status, _, data = self.request(method, path, body, headers)
        return status, json.loads(data)

    def complete(self, prompt, **fields):
        """A whole reply; fails unless the status is 200."""
        status, reply = self.json("POST", "/v1/completions", {"prompt": prompt, **fields})
        if status != 200:
            raise AssertionError("status %d: %s" % (status, reply))
        return reply

    def text(self, prompt, **fields):
        return self.complete(prompt, **fields)["choices"][0]["text"]

    def open_stream(self, prompt, **fields):
        connection = self.connect()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": prompt, "stream": True, **fields}))
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError("status %d: %s" % (response.status, response.read()))
        return connection, response

    def metrics(self):
        text = self.request("GET", "/metrics")[2].decode()
        return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}

    def wait_for(self, metric, value, seconds=120):
        end = time.monotonic() + seconds
        while self.metrics()["polysketch_" + metric] != value:
            if time.monotonic() > end:
                raise AssertionError("%s is %g after %g s, not %g" %
                                     (metric, self.metrics()["polysketch_" + metric], seconds, value))
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, number=signal.SIGTERM):
        """The exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        for reader in self.readers:
            reader.join()
        return code


def events(response):
    """The objects of a stream, without [DONE], whose absence fails."""
    for line in response:
        line = line.decode().rstrip("\n")
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])
    raise AssertionError("the stream ended without [DONE]")


def join(chunks, count=1):
    """The choices of a stream as a whole reply has them."""
    choices = [{"text": "", "finish_reason": None, "logprobs": None} for _ in range(count)]
    for chunk in chunks:
        if "error" in chunk:
            raise AssertionError(chunk)
        for part in chunk["choices"]:
            choice = choices[part["index"]]
            choice["text"] += part["text"]
            for key in ("finish_reason", "session", "state"):
                if part.get(key) is not None:
                    choice[key] = part[key]
            if part["logprobs"]:
                lists = choice["logprobs"] = choice["logprobs"] or {key: [] for key in part["logprobs"]}
                for key, values in part["logprobs"].items():
                    lists[key] = lists[key] + values if values is not None else None
    return choices


def together(functions):
    """Runs the functions at once, each in a thread; their results in order; raises what one of them raised."""
    results = queue.Queue()

    def run(index, function):
        try:
            results.put((index, function(), None))
        except BaseException as error:  # noqa: B902 - handed to the caller
            results.put((index, None, error))

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted((results.get() for _ in threads), key=lambda item: item[0])
    for _, _, error in found:
        if error:
            raise error
    return [value for _, value, _ in found]
