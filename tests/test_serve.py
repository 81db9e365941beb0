#!/usr/bin/env python3
"""polysketch serve as clients see it, over the loopback interface.
    test_serve.py PROGRAM [unittest's arguments]
Exit code 77 (skipped) where the program was built without libmicrohttpd."""
import base64
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from serve_client import END_OF_TEXT, NEVER_END, STORY, Server, events, join, make_model, together

PROGRAM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else "polysketch"
DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "server.md")
GREEDY = {"temperature": 0}
LONG = {"max_tokens": 100_000_000, "logit_bias": NEVER_END}
OPTIONS = ["--sessions", "12", "--max-tokens", "500M"]
PLACE = {}  # folder, model


def setUpModule():
    PLACE["temporary"] = tempfile.TemporaryDirectory(prefix="psk-serve.")
    PLACE["folder"] = PLACE["temporary"].name
    PLACE["model"] = make_model(PROGRAM, PLACE["folder"])


def tearDownModule():
    PLACE["temporary"].cleanup()


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


# ------------------------------------------------------------------------------------------------------------- errors

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
            ({"prompt": "a", "max_tokens": -1}, "max_tokens", "outside"),
            ({"prompt": "a", "max_tokens": 1001}, "max_tokens", "limit of 1000"),
            ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "whole"),
            ({"prompt": "a", "max_tokens": "1"}, "max_tokens", "a string"),
            ({"prompt": "a", "n": 0}, "n", "outside"),
            ({"prompt": "a", "n": 13}, "n", "12"),
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

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b"3", b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "\xff"}', b"\0" * 100,
                     b"[" * 50000, b'{"a":' * 10000, b'{"prompt": 1e999}'):
            with self.subTest(body=body[:30]):
                self.expect_error(400, None, body)
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


# -------------------------------------------------------------------------------------------------------- completions

class Completions(WithServer):
    def test_shapes(self):
        reply = self.server.complete("She caf", max_tokens=20, seed=5, model="model1")
        self.assertEqual(reply["object"], "text_completion")
        self.assertEqual(reply["model"], "model1")
        self.assertLess(abs(reply["created"] - time.time()), 60)
        self.assertTrue(reply["id"].startswith("cmpl-"))
        choice = reply["choices"][0]
        self.assertEqual((choice["index"], choice["logprobs"], choice["finish_reason"]), (0, None, "length"))
        self.assertEqual(reply["usage"], {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27,
                                          "prompt_tokens_details": {"cached_tokens": 0}})
        self.assertEqual(reply["sampling"]["seed"], 5)
        self.assertEqual(choice["session"]["tokens"], 26)
        again = self.server.complete("She caf", max_tokens=20, **{k: v for k, v in reply["sampling"].items()})
        self.assertEqual(again["choices"][0]["text"], choice["text"])
        self.assertEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], 6)

    def test_learned(self):
        self.assertEqual(self.server.text("The caf", max_tokens=8, **GREEDY), "é 🙂 ")

    def test_prompt_forms(self):
        prompts = ["The caf", "It rained.", "She"]
        alone = [self.server.text(p, max_tokens=30, seed=9) for p in prompts]
        tokens = [list(p.encode()) for p in prompts]
        for form in (prompts, tokens):
            reply = self.server.complete(form, max_tokens=30, seed=9)
            self.assertEqual([c["text"] for c in reply["choices"]], alone)
            self.assertEqual([c["index"] for c in reply["choices"]], [0, 1, 2])
            self.assertEqual(reply["usage"]["prompt_tokens"], sum(map(len, tokens)))
        self.assertEqual(self.server.text(tokens[0], max_tokens=30, seed=9), alone[0])
        self.assertEqual(len(self.server.complete(["a"] * 40, n=3, max_tokens=2)["choices"]), 120)

    def test_several_choices(self):
        fields = {"max_tokens": 40, "seed": 3, "temperature": 1.5}
        reply = self.server.complete(["It", "She"], n=4, **fields)
        texts = [c["text"] for c in reply["choices"]]
        self.assertEqual(texts[0], self.server.text("It", **fields))
        self.assertEqual(texts[4], self.server.text("She", **fields))
        self.assertEqual(len(set(texts)), 8)
        self.assertEqual(reply["usage"]["completion_tokens"], 8 * 40)
        self.assertEqual(join(events(self.server.open_stream(["It", "She"], n=4, **fields)[1]), 8)[5]["text"], texts[5])

    def test_max_tokens_0_and_no_prompt(self):
        reply = self.server.complete("The caf", max_tokens=0)
        self.assertEqual((reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]), ("", "length"))
        self.assertEqual(reply["usage"]["completion_tokens"], 0)
        self.assertEqual(self.server.text("The caf", max_tokens=0, echo=True), "The caf")
        self.assertEqual(self.server.complete("", max_tokens=5)["usage"]["prompt_tokens"], 1)

    def test_settings_reach_the_sampler(self):
        prompt = "The caf"
        self.assertEqual(self.server.text(prompt, max_tokens=9, logit_bias={"120": 100}), "x" * 9)
        self.assertEqual(self.server.text(prompt, max_tokens=8, temperature=3, top_k=1), "é 🙂 ")
        self.assertEqual(self.server.text(prompt, max_tokens=8, temperature=3, top_p=1e-6), "é 🙂 ")
        self.assertEqual(self.server.text(prompt, max_tokens=8, temperature=3, min_p=1), "é 🙂 ")
        self.assertNotEqual(self.server.text(prompt, max_tokens=40, temperature=3, seed=1),
                            self.server.text(prompt, max_tokens=40, temperature=3, seed=2))
        self.assertEqual(self.server.complete(prompt, max_tokens=5, logit_bias={"256": 100})["choices"][0]["finish_reason"],
                         "stop")
        greedy = self.server.text(prompt, max_tokens=80, **GREEDY)
        for penalty in ({"presence_penalty": 50}, {"frequency_penalty": 50}, {"repetition_penalty": 100}):
            text = self.server.text(prompt, max_tokens=60, logit_bias=NEVER_END, **GREEDY, **penalty)
            self.assertNotEqual(text[:30], greedy[:30], penalty)

    def test_stream_equals_whole(self):
        for fields in ({}, {"echo": True}, {"stop": ["full", "It"]}, {"logprobs": 3}, {"logprobs": 0, "echo": True},
                       {"n": 3, "temperature": 1.3}, {"logprobs": 2, "stop": " She"}, {"max_tokens": 0},
                       {"max_tokens": 0, "echo": True, "logprobs": 1}, {"return_state": True, "max_tokens": 4},
                       {"temperature": 8, "max_tokens": 200}):
            for prompt in ("The caf", "The café 🙂", list("é".encode())[:1]):
                with self.subTest(fields=fields, prompt=prompt):
                    fields = {"max_tokens": 50, "seed": 4, "temperature": 0.7, **fields}
                    whole = self.server.complete(prompt, **fields)
                    chunks = list(events(self.server.open_stream(prompt, stream_options={"include_usage": True},
                                                                 **fields)[1]))
                    choices = join(chunks, len(whole["choices"]))
                    for got, want in zip(choices, whole["choices"]):
                        self.assertEqual(got, {k: v for k, v in want.items() if k in got})
                    self.assertEqual(chunks[-1]["choices"], [])
                    self.assertEqual(chunks[-1]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
                    self.assertTrue(all(chunk["usage"] is None for chunk in chunks[:-1]))

    def test_stop(self):
        text = self.server.text("The caf", max_tokens=90, **GREEDY)
        self.assertTrue(text.startswith("é 🙂 was full. It rained. 🙂 She read"), text)
        for stop, want in (
            ("It", "é 🙂 was full. "),
            (["full", "was"], "é 🙂 "),
            ("was fool", None),              # shares its beginning with the text
            (["was fool", "was full"], "é 🙂 "),
            ("🙂", "é "),
            (" was", "é 🙂"),                # right behind a 4-byte character
            (["🙂 sheep", "🙂 was f"], "é "),
            ("é", ""),
            ("\n", None),
        ):
            want_finish = "stop"
            if want is None:
                want = text.split(stop)[0] if isinstance(stop, str) else text
                want_finish = "stop" if want != text else "length"
            for stream in (False, True):
                with self.subTest(stop=stop, stream=stream):
                    choice = (join(events(self.server.open_stream("The caf", max_tokens=90, stop=stop, **GREEDY)[1]))
                              if stream else self.server.complete("The caf", max_tokens=90, stop=stop, **GREEDY)["choices"])[0]
                    self.assertEqual((choice["text"], choice["finish_reason"]), (want, want_finish))

    def test_stream_cuts_no_character(self):
        chunks = list(events(self.server.open_stream("The caf", max_tokens=90, temperature=2, seed=1)[1]))
        text = "".join(c["choices"][0]["text"] for c in chunks)
        self.assertEqual(text, self.server.text("The caf", max_tokens=90, temperature=2, seed=1))
        pieces = [c["choices"][0]["text"] for c in events(self.server.open_stream("The caf", max_tokens=8, **GREEDY)[1])]
        self.assertEqual("".join(pieces), "é 🙂 ")
        self.assertNotIn("\ufffd", "".join(pieces))

    def test_tokens(self):
        for text in ("", "a", STORY, "\0", "🙂é"):
            status, answer = self.server.json("POST", "/tokenize", {"prompt": text})
            self.assertEqual((status, answer["tokens"]), (200, list(text.encode())))
            self.assertEqual(answer["count"], len(answer["tokens"]))
            self.assertEqual(self.server.json("POST", "/detokenize", {"tokens": answer["tokens"]}), (200, {"prompt": text}))
        self.assertEqual(self.server.json("POST", "/tokenize", {"prompt": "<|endoftext|>"})[1]["tokens"], [END_OF_TEXT])
        self.assertEqual(self.server.json("POST", "/detokenize", {"tokens": [226, 152, 65]})[1]["prompt"], "\ufffdA")
        self.assertEqual(self.server.json("GET", "/tokenizer_info")[1]["eos_token_id"], END_OF_TEXT)

    def test_models(self):
        status, answer = self.server.json("GET", "/v1/models")
        self.assertEqual((status, [m["id"] for m in answer["data"]]), (200, ["model1"]))
        self.assertEqual(self.server.json("GET", "/v1/models/model1")[1], answer["data"][0])
        sizes = answer["data"][0]["state_bytes"]
        self.assertEqual(sizes["1024"], sizes["1048576"])


class LogProbabilities(WithServer):
    def test_echo(self):
        text = "The café 🙂 was"
        choice = self.server.complete(text, max_tokens=0, echo=True, logprobs=4)["choices"][0]
        lists = choice["logprobs"]
        self.assertEqual(choice["text"], text)
        count = len(text.encode())
        self.assertEqual([len(lists[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")], [count] * 4)
        self.assertEqual((lists["token_logprobs"][0], lists["top_logprobs"][0]), (None, None))
        self.assertEqual(lists["tokens"][:7], list("The caf"))
        self.assertEqual(lists["tokens"][7:9], ["bytes:\\xc3", "bytes:\\xa9"])
        self.assertEqual(lists["text_offset"], [len(text.encode()[:i].decode(errors="ignore")) for i in range(count)])
        for token, logprob, tops in list(zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"]))[1:]:
            self.assertLessEqual(logprob, 0)
            self.assertEqual(tops[token], logprob)
            self.assertIn(len(tops), (4, 5))
            self.assertLess(sum(map(math.exp, tops.values())), 1 + 1e-5)

    def test_prompt_equals_output(self):
        """What was written has the log-probabilities of the same text when it is read."""
        written = self.server.complete("The caf", max_tokens=29, temperature=0.5, seed=2, logprobs=2, logit_bias=NEVER_END)
        written = written["choices"][0]
        read = self.server.complete("The caf" + written["text"], max_tokens=0, echo=True, logprobs=2)["choices"][0]
        self.assertNotIn("\ufffd", written["text"])
        for got, want in zip(written["logprobs"]["token_logprobs"], read["logprobs"]["token_logprobs"][7:]):
            self.assertAlmostEqual(got, want, delta=1e-3)
        self.assertEqual(written["logprobs"]["tokens"], read["logprobs"]["tokens"][7:])
        both = self.server.complete("The caf", max_tokens=29, temperature=0.5, seed=2, logprobs=2, echo=True,
                                    logit_bias=NEVER_END)["choices"][0]
        self.assertEqual(both["text"], "The caf" + written["text"])
        self.assertEqual(both["logprobs"]["text_offset"][7:], [7 + o for o in written["logprobs"]["text_offset"]])

    def test_stop_cuts_tokens(self):
        choice = self.server.complete("The caf", max_tokens=50, stop="ull", logprobs=1, **GREEDY)["choices"][0]
        self.assertEqual(choice["text"], "é 🙂 was f")
        self.assertEqual(len(choice["logprobs"]["tokens"]), len("é 🙂 was f".encode()))
        self.assertEqual(choice["logprobs"]["tokens"][-1], "f")

    def test_whole_prompt_is_scored_in_cuts(self):
        """A prompt longer than several cuts: the same as by prefixes, each of which ends elsewhere."""
        text = STORY * 8
        all_of_it = self.server.complete(text, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"]
        self.assertEqual(len(all_of_it), len(text.encode()))
        for end in (20, 256, 257, 300, 600):
            tokens = list(text.encode())[:end]
            part = self.server.complete(tokens, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"]
            for got, want in zip(part[1:], all_of_it[1:]):
                self.assertAlmostEqual(got, want, delta=1e-3)


# ------------------------------------------------------------------------------------------------------ cache, states

class Cache(WithServer):
    def cached(self, prompt, **fields):
        reply = self.server.complete(prompt, max_tokens=30, seed=7, **fields)
        return reply["usage"]["prompt_tokens_details"]["cached_tokens"], reply["choices"][0]["text"]

    def test_every_length(self):
        for length in (*range(1, 70), 255, 256, 257, 258, 300, 512, 700):
            prompt = [(length * 31 + i * i * 7 + i) % 256 for i in range(length)]
            count, text = self.cached(prompt)
            self.assertEqual(count, 0)
            self.assertEqual(self.cached(prompt), (length - 1, text))

    def test_edits(self):
        text = (STORY * 12)[:1000]
        prompt = list(text.encode())[:1000]
        self.cached(prompt)
        for at in (1, 31, 40, 255, 256, 300, 500, 770, 900, 985, 998):
            edited = prompt.copy()
            edited[at] = 7
            cut = at // 256 * 256 if at < 768 else at // 32 * 32
            with Server(PROGRAM, PLACE["model"], *OPTIONS, "--cache", "0") as fresh:
                want = fresh.text(edited, max_tokens=30, seed=7)
            self.assertEqual(self.cached(edited), (cut, want))
        longer = prompt + list(b" And then?")
        self.assertGreaterEqual(self.cached(longer)[0], 992)

    def test_cache_changes_nothing(self):
        prompts = [(STORY * 5)[:n] + end for n in (10, 60, 61, 200, 400) for end in ("", " a", " b" * 20)]
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--cache", "0") as off:
            with Server(PROGRAM, PLACE["model"], *OPTIONS, "--cache", "700k") as small:
                for prompt in prompts + prompts:
                    want = off.complete(prompt, max_tokens=40, temperature=2, seed=3)
                    self.assertEqual(want["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
                    for server in (self.server, small):
                        self.assertEqual(server.text(prompt, max_tokens=40, temperature=2, seed=3),
                                         want["choices"][0]["text"])
                sizes = small.metrics()
                self.assertLessEqual(sizes["polysketch_cache_bytes"], 700 * 1024)
                self.assertGreaterEqual(sizes["polysketch_cache_snapshots"], 2)


class States(WithServer):
    def continue_from(self, server, state, **fields):
        reply = server.complete(" She", max_tokens=100, state=state, **GREEDY, **fields)
        return reply["choices"][0]["text"], reply["usage"]

    def test_moves_to_another_process(self):
        first = self.server.complete(STORY * 3 + "The caf", max_tokens=20, return_state=True, **GREEDY)
        state = first["choices"][0]["state"]
        held = len((STORY * 3 + "The caf").encode()) + 20
        self.assertEqual(state["tokens"], held)
        data = base64.b64decode(state["data"])
        self.assertEqual(len(data), state["bytes"])
        want, usage = self.continue_from(self.server, state)
        self.assertEqual(usage["prompt_tokens"], held + 4)
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], held)
        whole = self.server.text(STORY * 3 + "The caf" + first["choices"][0]["text"] + " She", max_tokens=100, **GREEDY)
        self.assertEqual(want, whole)
        with Server(PROGRAM, PLACE["model"], *OPTIONS) as other:
            self.assertEqual(other.request("PUT", "/v1/state/mine.1", data)[0], 200)
            self.assertEqual(other.json("GET", "/v1/state")[1]["data"], [{"name": "mine.1", "tokens": held, "bytes": len(data)}])
            self.assertEqual(other.request("GET", "/v1/state/mine.1")[2], data)
            got, usage = self.continue_from(other, "mine.1")
            self.assertEqual((got, usage["prompt_tokens_details"]["cached_tokens"]), (want, held))
            self.assertEqual(self.continue_from(other, state)[0], want)
            self.assertEqual(join(events(other.open_stream(" She", max_tokens=100, state="mine.1", **GREEDY)[1]))[0]["text"], want)
            self.assertEqual(other.json("DELETE", "/v1/state/mine.1")[0], 200)
            self.assertEqual(other.json("DELETE", "/v1/state/mine.1")[0], 404)

    def test_kept_here(self):
        for stream in (False, True):
            name = "kept-%d" % stream
            fields = {"max_tokens": 12, "return_state": name, **GREEDY}
            choice = (join(events(self.server.open_stream("It rained.", **fields)[1])) if stream
                      else self.server.complete("It rained.", **fields)["choices"])[0]
            self.assertEqual(choice["state"]["name"], name)
            self.assertNotIn("data", choice["state"])
            self.assertEqual(choice["state"]["tokens"], 22)
        self.assertEqual(self.server.request("GET", "/v1/state/kept-0")[2], self.server.request("GET", "/v1/state/kept-1")[2])
        texts = {self.continue_from(self.server, name)[0] for name in ("kept-0", "kept-1", "kept-0")}
        self.assertEqual(len(texts), 1)
        prompt_only = self.server.complete("It rained.", max_tokens=0, return_state="kept-0")
        self.assertEqual(prompt_only["choices"][0]["state"]["tokens"], 10)
        several = self.server.complete("It", n=3, max_tokens=5, temperature=2, seed=1, return_state=True)["choices"]
        self.assertEqual(len({c["state"]["data"] for c in several}), 3)

    def test_refused(self):
        self.server.complete("It", max_tokens=1, return_state="good")
        data = self.server.request("GET", "/v1/state/good")[2]
        for damaged in (b"", data[:-1], data + b"x", data[:200] + bytes([data[200] ^ 1]) + data[201:], b"noise" * 100):
            self.assertEqual(self.server.request("PUT", "/v1/state/bad", damaged)[0], 400)
        self.assertEqual(self.server.json("GET", "/v1/state/bad")[0], 404)
        with Server(PROGRAM, make_model(PROGRAM, PLACE["folder"], seed=2, steps=1), *OPTIONS, "--state-memory",
                    str(len(data) + 10)) as other:
            status, answer = other.json("PUT", "/v1/state/foreign", data)
            self.assertEqual(status, 400)
            self.assertIn("model", answer["error"]["message"])
            self.expect_error(400, "state", {"prompt": "a", "state": {"data": base64.b64encode(b"noise").decode()}})
            other.complete("It", max_tokens=1, return_state="one")
            status, answer = other.json("POST", "/v1/completions", {"prompt": "It", "return_state": "two"})
            self.assertEqual((status, answer["error"]["code"]), (507, "state_storage_full"))
            self.assertEqual(other.json("POST", "/v1/completions", {"prompt": "It", "max_tokens": 1, "return_state": "one"})[0],
                             200)


# ---------------------------------------------------------------------------------------------- many clients at once

class Together(WithServer):
    options = ["--sessions", "6", "--queue", "100", "--max-tokens", "500M"]

    def test_text_does_not_depend_on_others(self):
        fields = {"max_tokens": 200, "temperature": 1.1, "seed": 11, "logit_bias": NEVER_END}
        want = self.server.text("The caf", **fields)
        for others in (1, 2, 8, 20):
            functions = [lambda: self.server.text("The caf", **fields)]
            functions += [lambda i=i: self.server.text(STORY[i:] * (i + 1), max_tokens=150 + i, temperature=1.5, seed=i)
                          for i in range(others)]
            functions += [lambda: join(events(self.server.open_stream("The caf", **fields)[1]))[0]["text"]]
            results = together(functions)
            self.assertEqual((results[0], results[-1]), (want, want), others)

    def test_conversations_do_not_see_each_other(self):
        turns = [" It rained.", " 🙂 She", " read the", "\nThe", " home"]

        def talk(name, first, server):
            texts, state = [], {}
            for turn in turns:
                texts.append(server.text(first + turn, max_tokens=25, temperature=1, seed=5, return_state=name,
                                         logit_bias=NEVER_END, **state))
                state, first = {"state": name}, ""
            return texts

        with Server(PROGRAM, PLACE["model"], *self.options, "--cache", "0") as off:
            want = [talk("a", "The caf", off), talk("b", "Nobody", off)]
        names = [("c%d" % i, "The caf" if i % 2 == 0 else "Nobody") for i in range(6)]
        results = together([lambda n=n, f=f: talk(n, f, self.server) for n, f in names])
        for i, texts in enumerate(results):
            self.assertEqual(texts, want[i % 2])


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


# ------------------------------------------------------------------------------------------------------------ running

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

    def test_drain(self):
        fields = {"max_tokens": 8000, "temperature": 1, "seed": 1, "logit_bias": NEVER_END}
        want = self.server.text("It", **fields)
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--drain-seconds", "200") as server:
            kept = server.connect()
            kept.request("GET", "/health")
            kept.getresponse().read()
            _, response = server.open_stream("It", **fields)
            chunks = events(response)
            first = next(chunks)
            server.process.send_signal(signal.SIGTERM)
            while not any("finishing" in line for line in server.messages):
                time.sleep(0.01)
            with self.assertRaises(OSError):
                server.request("GET", "/health")
            self.assertEqual(join([first, *chunks])[0]["text"], want)
            self.assertEqual(server.process.wait(60), 0)

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


def main():
    probe = subprocess.run([PROGRAM, "serve", "--model", "none"], capture_output=True, text=True)
    if "built without libmicrohttpd" in probe.stderr:
        print("test_serve: skipped, " + probe.stderr.strip())
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])


if __name__ == "__main__":
    main()
