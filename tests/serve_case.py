"""What the tests of `polysketch serve` share beside serve_client.py: a model for a file, a server for a class.
A file of tests is called with PROGRAM [unittest's arguments]; it ends with code 77 (skipped) where the program was built
without libmicrohttpd."""
import os
import subprocess
import sys
import tempfile
import unittest

from serve_client import NEVER_END, Server, make_model

PROGRAM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else "polysketch"
GREEDY = {"temperature": 0}
LONG = {"max_tokens": 100_000_000, "logit_bias": NEVER_END}
OPTIONS = ["--sessions", "12", "--max-tokens", "500M"]
PLACE = {}  # folder, model


class WithServer(unittest.TestCase):
    """A server for the tests of a class, which it must survive."""
    options = OPTIONS
    environment = {}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(PROGRAM, PLACE["model"], *cls.options, environment=cls.environment)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        if code != 0:
            raise AssertionError("the server ended with %d:\n%s" % (code, "".join(cls.server.messages)))

    def expect_error(self, status, param, body, *words, path="/v1/completions", method="POST", headers=None):
        got, answer = self.server.json(method, path, body, headers)
        self.assertEqual(got, status, answer)
        error = answer["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertEqual(error["param"], param, error)
        for word in words:
            self.assertIn(word, error["message"])
        return error


def main():
    probe = subprocess.run([PROGRAM, "serve", "--model", "none"], capture_output=True, text=True)
    if "built without libmicrohttpd" in probe.stderr:
        print("skipped, " + probe.stderr.strip())
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="psk-serve.") as folder:
        PLACE.update(folder=folder, model=make_model(PROGRAM, folder))
        unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
