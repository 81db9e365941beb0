#!/usr/bin/env python3
"""What polysketch serve refuses, and to whom."""
import json
import socket
import unittest

from serve_case import OPTIONS, PLACE, PROGRAM, WithServer, main
from serve_client import Server


class Errors(WithServer):
    options = [*OPTIONS, "--max-body", "64k", "--max-prompt", "4k", "--max-tokens", "1000"]

    def test_wrong_fields(self):
        for body, param, *words in (
            ({}, "prompt", "missing"),
            ({"prompt": ""}, None),
            ({"prompt": []}, "prompt", "not empty"),
            ({"prompt": 3}, "prompt", "must be"),
            ({"prompt": {"a": 1}}, "prompt"),
            ({"prompt": ["a", 1]}, "prompt", "entry 1 is a whole number"),
            ({"prompt": [1, "a"]}, "prompt", "entry 1 is a string"),
            ({"prompt": [[1], "a"]}, "prompt"),
            ({"prompt": [1, 257]}, "prompt", "257", "vocabulary"),
            ({"prompt": [-1]}, "prompt", "-1"),
            ({"prompt": [1.5]}, "prompt"),
            ({"prompt": "a", "max_tokns": 1}, "max_tokns", 'did you mean "max_tokens"?'),
            ({"prompt": "a", "frobnicate": 1}, "frobnicate", "frobnicate"),
            ({"prompt": "a", "max_tokens": -1}, "max_tokens", "-1 is outside 0 ... 1000,"),
            ({"prompt": "a", "max_tokens": 1001}, "max_tokens", "1001 is outside 0 ... 1000, the limit of this server"),
            ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "whole"),
            ({"prompt": "a", "max_tokens": "1"}, "max_tokens", "a string"),
            ({"prompt": "a", "n": 0}, "n", "0 is outside 1 ... 12,"),
            ({"prompt": "a", "n": 13}, "n", "13 is outside 1 ... 12,"),
            ({"prompt": "a", "best_of": 2}, "best_of"),
            ({"prompt": "a", "stream": 1}, "stream", "true or false"),
            ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options", "stream"),
            ({"prompt": "a", "stream": True, "stream_options": {"usage": True}}, "stream_options", "include_usage"),
            ({"prompt": "a", "echo": "yes"}, "echo"),
            ({"prompt": "a", "logprobs": 21}, "logprobs", "20"),
            ({"prompt": "a", "logprobs": True}, "logprobs"),
            ({"prompt": "a", "stop": ["a"] * 17}, "stop", "16"),
            ({"prompt": "a", "stop": ""}, "stop"),
            ({"prompt": "a", "stop": "a\0b"}, "stop"),
            ({"prompt": "a", "stop": "a" * 257}, "stop", "256"),
            ({"prompt": "a", "stop": [1]}, "stop"),
            ({"prompt": "a", "seed": 1.5}, "seed"),
            ({"prompt": "a", "temperature": -0.1}, "temperature", "0 ... 100"),
            ({"prompt": "a", "temperature": "hot"}, "temperature"),
            ({"prompt": "a", "top_k": -1}, "top_k"),
            ({"prompt": "a", "top_p": 0}, "top_p"),
            ({"prompt": "a", "top_p": 1.1}, "top_p"),
            ({"prompt": "a", "min_p": 2}, "min_p"),
            ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
            ({"prompt": "a", "presence_penalty": 1000}, "presence_penalty"),
            ({"prompt": "a", "frequency_penalty": None, "penalty_window": -1}, "penalty_window"),
            ({"prompt": "a", "logit_bias": [1]}, "logit_bias"),
            ({"prompt": "a", "logit_bias": {"257": 1}}, "logit_bias", "257"),
            ({"prompt": "a", "logit_bias": {"a": 1}}, "logit_bias", '"a"'),
            ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias", "100"),
            ({"prompt": "a", "suffix": "b"}, "suffix"),
            ({"prompt": "a", "user": 5}, "user"),
            ({"prompt": "a", "model": "model1\0x"}, "model", "zero byte"),
            ({"prompt": "a", "state": "../x"}, "state", "name"),
            ({"prompt": "a", "state": 5}, "state"),
            ({"prompt": "a", "state": {"data": "###"}}, "state", "base64"),
            ({"prompt": "a", "state": {"data": "AAAA"}}, "state"),
            ({"prompt": "", "state": {"data": "AAAA"}}, "prompt", "state"),
            ({"prompt": "a", "state": {"data": "AAAA"}, "echo": True}, "echo"),
            ({"prompt": "a", "return_state": ".."}, "return_state"),
            ({"prompt": "a", "return_state": 1}, "return_state"),
            ({"prompt": ["a", "b"], "return_state": "x"}, "return_state"),
        ):
            with self.subTest(body=body):
                if param is None:
                    self.assertEqual(self.server.json("POST", "/v1/completions", body)[0], 200)
                else:
                    self.expect_error(400, param, body, *words)

    def test_null_is_as_good_as_nothing(self):
        fields = dict.fromkeys(("max_tokens", "n", "stop", "logprobs", "logit_bias", "seed", "suffix", "user", "stream",
                                "best_of", "stream_options", "echo", "top_p", "temperature", "state", "return_state"))
        self.assertEqual(len(self.server.complete("The", **fields)["choices"]), 1)

    def test_names_that_are_not_there(self):
        error = self.expect_error(404, "model", {"prompt": "a", "model": "gpt"}, "gpt", "model1")
        self.assertEqual(error["code"], "model_not_found")
        self.expect_error(404, "state", {"prompt": "a", "state": "none"}, "none")
        self.expect_error(404, "model", None, "gpt", path="/v1/models/gpt", method="GET")
        self.expect_error(404, None, None, "/v2", path="/v2", method="GET")
        self.expect_error(404, None, {}, path="/v1/chat/completions")
        self.expect_error(405, None, None, "POST", path="/v1/completions", method="GET")
        self.expect_error(405, None, {}, path="/v1/state/x", method="POST")
        for path in ("/v1/state/none", "/v1/state/-"):
            self.expect_error(404, "state", None, path=path, method="GET")
        for name in ("%2e%2e", "a%2fb", "a%20b", "x" * 65, "%c3%a4"):
            self.expect_error(400, None, None, "name", path="/v1/state/" + name, method="GET")

    def test_paths_with_a_zero_byte(self):
        self.server.complete("a", max_tokens=1, return_state="mine")
        for method, path in (("DELETE", "/v1/state/mine%00other"), ("GET", "/v1/models/model1%00x"),
                             ("GET", "/health%00"), ("GET", "/%00")):
            self.expect_error(400, None, None, "zero byte", path=path, method=method)
        self.assertEqual(self.server.request("DELETE", "/v1/state/mine?%00")[0], 200)

    def test_messages_that_cut_a_character(self):
        """What is quoted in part may end inside a character; what follows is said all the same."""
        for shift in ("x", ""):
            name = shift + "\u00e9" * 100
            error = self.expect_error(404, "model", {"prompt": "a", "model": name},
                                      '" is not here; this server has "model1"')
            self.assertIn(shift + "\u00e9" * 39, error["message"])
            status, answer = self.server.json("POST", "/v1/completions", {"prompt": "a", name: 1})
            self.assertEqual(status, 400)
            self.assertIn("there are model, prompt", answer["error"]["message"])
            self.assertTrue(answer["error"]["param"].startswith(name[:30]))

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b"3", b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "\xff"}', b"\0" * 100,
                     b"[" * 50000, b'{"a":' * 10000, b'{"prompt": 1e999}'):
            with self.subTest(body=body[:30]):
                self.expect_error(400, None, body)
        self.expect_error(400, None, b"", "the body is empty")
        self.expect_error(413, None, b"a" * 70000, "65536")
        self.expect_error(413, None, b"a" * 200000, "65536")
        self.expect_error(400, "prompt", {"prompt": "a" * 5000}, "5000", "4096")
        self.expect_error(400, "prompt", {"prompt": ["a"] * 1025}, "1025")
        for path in ("/tokenize", "/detokenize"):
            self.expect_error(400, None, b"{", path=path)
            self.expect_error(400, "x", {"x": 1}, path=path)
        self.expect_error(400, "prompt", {}, path="/tokenize")
        self.expect_error(400, "tokens", {"tokens": [257]}, path="/detokenize")

    def test_what_is_not_http(self):
        for noise in (b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                      b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10000 + b"\r\n", b"x" * 100000,
                      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            with socket.create_connection((self.server.host, self.server.port), 10) as connection:
                try:
                    connection.sendall(noise)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass  # closed in our face: as good an answer
        self.assertEqual(self.server.json("GET", "/health")[0], 200)

    def exchange(self, request):
        """All that comes back on a connection of its own."""
        with socket.create_connection((self.server.host, self.server.port), 10) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def test_large_bodies_are_refused_before_they_come(self):
        start, expect = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n", b"Expect: 100-continue\r\n"
        for size, more in ((70000, expect), (400000000, expect), (400000000, b"")):
            got = self.exchange(start + b"Content-Length: %d\r\n%s\r\n" % (size, more))
            self.assertEqual((got[:13], got.count(b"HTTP/1.1 ")), (b"HTTP/1.1 413 ", 1), got)
            self.assertIn(b"65536 bytes", got)
        got = self.exchange(start + expect + b'Content-Length: 14\r\nConnection: close\r\n\r\n{"prompt": ""}')
        self.assertIn(b"HTTP/1.1 200 ", got)

    def test_requests_that_can_be_read_in_two_ways(self):
        for method, headers in (("POST", b"Content-Length: 2\r\nContent-Length: 5"),
                                ("POST", b"Content-Length: 0\r\ncontent-length: 50"),
                                ("POST", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
                                ("POST", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
                                ("GET", b"Host: elsewhere")):
            with self.subTest(headers=headers):
                got = self.exchange(b"%s /health HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n0\r\n\r\n" %
                                    (method.encode(), headers) + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertEqual((got[:13], got.count(b"HTTP/1.1 ")), (b"HTTP/1.1 400 ", 1), got)

    def test_chunked_body_and_kept_connection(self):
        connection = self.server.connect()
        for _ in range(3):
            connection.request("POST", "/v1/completions", iter([b'{"prompt"', b': "The", "max_tokens"', b": 3}"]),
                               encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
            response = connection.getresponse()
            self.assertEqual((response.status, len(json.load(response)["choices"])), (200, 1))
        connection.close()


class Access(WithServer):
    options = [*OPTIONS, "--api-key", "secret"]

    def test_key(self):
        for given in (None, "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Bearer Secret", "Basic secret"):
            headers = {"Authorization": given} if given else {}
            error = self.expect_error(401, None, {"prompt": "a"}, headers=headers)
            self.assertEqual(error["code"], "invalid_api_key")
            self.expect_error(401, None, None, path="/metrics", method="GET", headers=headers)
        right = {"Authorization": "Bearer secret"}
        self.assertEqual(self.server.json("POST", "/v1/completions", {"prompt": "a"}, right)[0], 200)
        self.assertEqual(self.server.json("GET", "/health")[0], 200)
        self.assertEqual(self.server.request("GET", "/")[0], 200)

    def test_pages_from_elsewhere(self):
        right = {"Authorization": "Bearer secret"}
        self.expect_error(403, None, {"prompt": "a"}, "evil.example", headers={**right, "Origin": "http://evil.example"})
        self.expect_error(403, None, {"prompt": "a"}, headers={**right, "Origin": "null"})
        self.expect_error(403, None, {"prompt": "a"}, headers={**right, "Host": "evil.example:%d" % self.server.port,
                                                               "Origin": "http://evil.example:%d" % self.server.port})
        own = "http://localhost:%d" % self.server.port
        status, headers, _ = self.server.request("GET", "/v1/models", headers={**right, "Origin": own, "Host": own[7:]})
        self.assertEqual(status, 200)
        self.assertIsNone(headers["Access-Control-Allow-Origin"])
        self.assertEqual(self.server.request("OPTIONS", "/v1/models", headers=right)[0], 405)


class EmptyKey(unittest.TestCase):
    def test_is_refused(self):
        for name, options, environment in (("--api-key", ["--api-key", ""], {"POLYSKETCH_API_KEY": "key"}),
                                           ("POLYSKETCH_API_KEY", [], {"POLYSKETCH_API_KEY": ""})):
            with self.assertRaisesRegex(RuntimeError, name + " is empty"):
                Server(PROGRAM, PLACE["model"], *options, environment=environment).__exit__()


class OtherOrigin(WithServer):
    options = [*OPTIONS, "--cors-origin", "http://pages.example"]
    environment = {"POLYSKETCH_API_KEY": "from the environment"}

    def test_allowed(self):
        headers = {"Origin": "http://pages.example"}
        status, answer, _ = self.server.request("OPTIONS", "/v1/completions", headers=headers)
        self.assertEqual((status, answer["Access-Control-Allow-Origin"]), (204, "http://pages.example"))
        self.assertEqual(self.server.request("GET", "/v1/models", headers=headers)[0], 401)
        headers["Authorization"] = "Bearer from the environment"
        status, answer, _ = self.server.request("GET", "/v1/models", headers=headers)
        self.assertEqual((status, answer["Access-Control-Allow-Origin"]), (200, "http://pages.example"))
        self.expect_error(403, None, None, path="/v1/models", method="GET",
                          headers={**headers, "Origin": "http://other.example"})


if __name__ == "__main__":
    main()
