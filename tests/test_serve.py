#!/usr/bin/env python3
"""polysketch serve as clients see it, over the loopback interface: completions and log-probabilities."""
import math
import time

from serve_case import GREEDY, WithServer, main
from serve_client import END_OF_TEXT, NEVER_END, STORY, events, join


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
        fields = {"max_tokens": 40, "seed": 3, "temperature": 3, "logit_bias": NEVER_END}
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
        for text in ("", "a", STORY, "\0", "🙂é", "<|endoftext|>\0x"):
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

    def test_stop_that_comes_with_the_end(self):
        """Its last character is one that the end leaves unfinished."""
        fields = {"max_tokens": 2, "logprobs": 0, "presence_penalty": 100, "logit_bias": {"171": 100, "206": 60},
                  **GREEDY}
        for stop, text, offsets in ((None, "\ufffd\ufffd", [0, 1]), ("\ufffd\ufffd", "", [])):
            whole = self.server.complete("The caf", stop=stop, **fields)["choices"][0]
            self.assertEqual((whole["text"], whole["logprobs"]["text_offset"]), (text, offsets))
            streamed = join(events(self.server.open_stream("The caf", stop=stop, **fields)[1]))[0]
            lists = streamed["logprobs"] or {"text_offset": []}
            self.assertEqual((streamed["text"], lists["text_offset"]), (text, offsets))

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


if __name__ == "__main__":
    main()
