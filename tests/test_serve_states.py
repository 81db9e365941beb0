#!/usr/bin/env python3
"""What polysketch serve keeps and shares: its cache of prompts, states, computing for many clients at once."""
import base64
import json
import math
import os
import shutil
import unittest

import serve_state
from serve_case import GREEDY, OPTIONS, PLACE, PROGRAM, WithServer, main
from serve_client import NEVER_END, STORY, Server, events, join, make_model, together


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


class WithoutBlocks(unittest.TestCase):
    def test_block_size_0(self):
        run = make_model(PROGRAM, PLACE["folder"], 3, 1, "--attention", "softmax")
        folder = os.path.join(PLACE["folder"], "softmax")
        os.mkdir(folder)
        shutil.copy(os.path.join(run, "model.safetensors"), folder)
        with open(os.path.join(run, "config.json"), encoding="utf-8") as file:
            config = {**json.load(file), "block_size": 0}
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        with Server(PROGRAM, folder, *OPTIONS) as server:
            self.assertEqual(server.text("The cat", max_tokens=3, **GREEDY), server.text("The cat", max_tokens=3, **GREEDY))


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

    def test_what_is_sent_can_come_back(self):
        limit = self.server.json("GET", "/v1/models")[1]["data"][0]["limits"]["body_bytes"]
        sizes = [len(self.server.complete("a" * n, max_tokens=1, return_state=True)["choices"][0]["state"]["data"])
                 for n in (1, 15, 16, 30, 31, 32, 33, 100)]
        self.assertGreaterEqual(limit, 2**26 + max(sizes))
        self.assertNotIn("--max-body", "".join(self.server.messages))
        with Server(PROGRAM, PLACE["model"], *OPTIONS, "--max-body", str(max(sizes) // 2)) as server:
            self.assertRegex("".join(server.messages), "states of up to .* are larger than --max-body")
            self.assertEqual(server.json("GET", "/v1/models")[1]["data"][0]["limits"]["body_bytes"], max(sizes) // 2)

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


@unittest.skipUnless(serve_state.FOUND, "the library xxhash is not installed")
class ForeignStates(WithServer):
    def setUp(self):
        self.server.complete("It rained.", max_tokens=1, return_state="good")
        self.state = self.server.request("GET", "/v1/state/good")[2]

    def test_with_numbers_that_are_not_finite(self):
        for number in (math.nan, math.inf, -math.inf):
            state = serve_state.remake(self.state, first_number=number)
            self.expect_error(400, None, state, "not finite", path="/v1/state/bad", method="PUT")
            data = base64.b64encode(state).decode()
            self.expect_error(400, "state", {"prompt": "a", "state": {"data": data}}, "not finite")

    def test_of_a_text_that_is_too_long(self):
        state = serve_state.remake(self.state, length=2**31 - 11)
        self.assertEqual(self.server.request("PUT", "/v1/state/long", state)[0], 200)
        fields = {"prompt": " She", "state": "long", "return_state": True, "logit_bias": NEVER_END}
        reply = self.server.complete(max_tokens=6, **fields)
        self.assertEqual(reply["choices"][0]["state"]["tokens"], 2**31 - 1)
        for last in (False, True):
            self.expect_error(400, "state", {**fields, "max_tokens": 7, "return_state": last},
                              "2147483637", "11", "2147483647")


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


if __name__ == "__main__":
    main()
