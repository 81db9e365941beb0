#!/usr/bin/env python3
"""PyTorch on the shapes of `polysketch bench step` and `polysketch bench attention`, softmax attention.

The model is polysketch's own (docs/formats.md), parameter for parameter, with scaled_dot_product_attention for its
attention. Before anything is timed, logits, three steps' losses and gradient norms must be those of a golden file.
README.md beside this file has the commands.
"""
import argparse
import json
import math
import os
import platform
import resource
import statistics
import struct
import sys
import time
from pathlib import Path

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.checkpoint import checkpoint
except ImportError as error:
    print(f"pytorch_step.py: PyTorch is missing ({error}). Install it with:\n"
          "  python3 -m venv peers && peers/bin/pip install torch\n"
          "and run this file with peers/bin/python", file=sys.stderr)
    sys.exit(2)

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "model_softmax.safetensors"
# rms(error) / rms(reference): as for every device of polysketch; autocast's own rounding.
GOLDEN_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}

# name: vocabulary, layers, heads, width (src/model/config.c)
PRESETS = {
    "tiny": (257, 2, 2, 64),
    "mini": (257, 4, 3, 192),
    "small": (257, 6, 6, 384),
    "gpt2-small": (50257, 12, 12, 768),
    "gpt2-medium": (50257, 24, 16, 1024),
    "gpt2-large": (50257, 36, 20, 1280),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# As polysketch measures (programs/benchmark.c): samples share a span, short calls are repeated inside a sample.
SAMPLE_SPAN = 20.0
SHORT_CALL = 5e-3
RATE_SIZE = 1024

# ------------------------------------------------------------------------------------------------------------- model


def sinusoids(tokens, width):
    """N x D: (sin, cos) interleaved, theta_i = 10000^(-i/(D/2))."""
    i = torch.arange(width // 2, dtype=torch.float64)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * 10000.0 ** (-2 * i / width)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


def rope_table(tokens, head_size):
    """cos, sin: N x h/2, theta_i = 10000^(-2i/h)."""
    i = torch.arange(head_size // 2, dtype=torch.float64)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * 10000.0 ** (-2 * i / head_size)
    return angle.cos().float(), angle.sin().float()


def rope(x, cos, sin):
    """Turns the pairs (2i, 2i+1); the result has all first halves, then all second ones."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((even * cos - odd * sin, even * sin + odd * cos), dim=-1)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        hidden = 8 * width // 3 // 8 * 8
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        u, g = self.up(x).chunk(2, dim=-1)
        return self.down(u * F.gelu(g, approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x, cos, sin):
        x = x + self.attn(self.ln_1(x), cos, sin)
        return x + self.mlp(self.ln_2(x))


class Head(nn.Module):
    """lm_head.bias; the matrix is the embedding's."""

    def __init__(self, vocabulary):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))


class Model(nn.Module):
    def __init__(self, vocabulary, layers, heads, width, recompute=False, loss_chunk=0):
        super().__init__()
        self.recompute, self.loss_chunk = recompute, loss_chunk
        self.head_size = width // heads
        self.wte = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = Head(vocabulary)
        self.tables = None
        nn.init.normal_(self.wte.weight, std=0.1)
        for block in self.blocks:
            for matrix in (block.attn.qkv, block.mlp.up):
                nn.init.normal_(matrix.weight, std=0.02)
            for matrix in (block.attn.out, block.mlp.down):
                nn.init.normal_(matrix.weight, std=0.02 / math.sqrt(2 * layers))

    def prepare(self, tokens):
        """The tables of positions, outside of what is timed."""
        self.tables = (sinusoids(tokens, self.wte.embedding_dim), *rope_table(tokens, self.head_size))

    def hidden(self, tokens):
        wave, cos, sin = self.tables
        x = self.wte(tokens) + wave
        for block in self.blocks:
            x = checkpoint(block, x, cos, sin, use_reentrant=False) if self.recompute else block(x, cos, sin)
        return self.ln_f(x)

    def logits(self, x):
        return F.linear(x, self.wte.weight, self.lm_head.bias)

    def loss_sum(self, x, targets):
        return F.cross_entropy(self.logits(x), targets, reduction="sum")

    def forward(self, tokens, targets):
        """The mean cross-entropy; with loss_chunk, logits exist for so many tokens at a time."""
        x, targets = self.hidden(tokens).flatten(0, 1), targets.flatten()
        if not 0 < self.loss_chunk < targets.numel():
            return self.loss_sum(x, targets) / targets.numel()
        parts = zip(x.split(self.loss_chunk), targets.split(self.loss_chunk))
        return sum(checkpoint(self.loss_sum, a, b, use_reentrant=False) for a, b in parts) / targets.numel()


def autocast(dtype):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


class Step:
    """Forward, backward, clipping, AdamW: the work of polysketch's step."""

    def __init__(self, model, tokens, dtype, settings, compiled=False):
        self.model, self.settings, self.dtype = model, settings, dtype
        self.inputs, self.targets = tokens
        model.prepare(self.inputs.shape[1])
        self.loss = torch.compile(model) if compiled else model
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings["lr"], betas=(settings["beta1"], settings["beta2"]), eps=settings["eps"], fused=True)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.dtype):
            loss = self.loss(self.inputs, self.targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["grad_clip"])
        self.optimizer.step()
        return loss.item(), norm.item()


# -------------------------------------------------------------------------------------------------------------- gate


def read_safetensors(path):
    """Tensors and metadata of a safetensors file."""
    kinds = {"F32": torch.float32, "I32": torch.int32}
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = torch.frombuffer(bytearray(data[8 + size + begin:8 + size + end]), dtype=kinds[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors, metadata


def relative_error(got, want):
    return ((got - want).square().mean() / want.square().mean()).sqrt().item()


def check_golden(path, dtype, loss_chunk):
    """Losses and gradient norms of three steps, held against a golden file; logits too. What is off."""
    tensors, metadata = read_safetensors(path)
    config, settings = json.loads(metadata["config"]), json.loads(metadata["optimizer"])
    model = Model(config["vocab_size"], config["n_layer"], config["n_head"], config["n_embd"], True, loss_chunk)
    model.load_state_dict({k.removeprefix("param."): v for k, v in tensors.items() if k.startswith("param.")})
    tokens = tensors["tokens"].long()
    step = Step(model, (tokens[:, :-1], tokens[:, 1:].contiguous()), DTYPES[dtype], settings)
    with torch.no_grad(), autocast(DTYPES[dtype]):
        errors = {"logits": relative_error(model.logits(model.hidden(step.inputs)), tensors["logits"])}
    for i in (1, 2, 3):
        for name, value in zip(("loss", "grad_norm"), step()):
            errors[f"{name}.{i}"] = relative_error(torch.tensor(value), tensors[f"{name}.{i}"])
    return [f"{name} is {error:.2g} away" for name, error in errors.items() if not error <= GOLDEN_TOLERANCE[dtype]]


# --------------------------------------------------------------------------------------------------------- measuring


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(call, samples, compiled=False):
    """Seconds of each sample, after two calls that allocate; a first call longer than the span is the sample. A call
    that compiles comes before and never counts."""
    if compiled:
        call()
    first = seconds_of(call)
    if first > SAMPLE_SPAN:
        return [first]
    first = seconds_of(call)
    repeats = math.ceil(SHORT_CALL / max(first, 1e-8)) if first < SHORT_CALL else 1
    count = min(samples, max(1, int(SAMPLE_SPAN / (first * repeats))))
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds.append((time.perf_counter() - start) / repeats)
    return seconds


def matmul_rate(dtype):
    a, b = (torch.randn(RATE_SIZE, RATE_SIZE).to(dtype) for _ in range(2))
    return 2.0 * RATE_SIZE**3 / min(measure(lambda: a @ b, 10))


def attention_flops(tokens, head_size):
    """Forward, backward of one head, as programs/flops.c counts softmax: the triangle alone."""
    pairs = tokens * (tokens + 1) / 2
    return pairs * 4 * head_size, pairs * 10 * head_size


def step_flops(vocabulary, layers, heads, width, batch, tokens):
    hidden = 8 * width // 3 // 8 * 8
    dense = 6 * batch * tokens * (layers * (4 * width**2 + 3 * width * hidden) + width * vocabulary)
    return dense + layers * batch * heads * sum(attention_flops(tokens, width // heads))


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Report:
    """The table on the screen and the records of --json, with the keys of `polysketch bench`."""

    def __init__(self, options):
        self.options, self.described = options, False
        self.rate = matmul_rate(DTYPES[options.dtype])
        print(f"PyTorch {torch.__version__}, {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, "
              f"{torch.get_num_threads()} threads, {options.dtype}{', compiled' if options.compile else ''}\n"
              f"matmul {RATE_SIZE} x {RATE_SIZE} x {RATE_SIZE}: {self.rate / 1e9:.1f} GFLOP/s\n")

    def add(self, bench, which, shape, seconds, flops):
        """shape: n, batch, heads, head_size."""
        n, batch = shape["n"], shape["batch"]
        best, middle = min(seconds), statistics.median(seconds)
        print(f"{bench} {which}, {batch} x {n} tokens: min {best:.4g} s, median {middle:.4g} s of {len(seconds)}, "
              f"{best * 1e6 / (n * batch):.1f} us/token, {flops / best / 1e9:.1f} useful GFLOP/s "
              f"({100 * flops / best / self.rate:.0f} % of matmul), peak memory {peak_memory() / 2**20:.0f} MiB")
        if not self.options.json:
            return
        record = {
            "bench": bench, "mechanism": "softmax", "sketch": None, "local": None, "pass": which,
            "dtype": self.options.dtype, **shape, "sketch_size": None, "block_size": None,
            "threads": torch.get_num_threads(), "device": "pytorch", "seconds_min": best, "seconds_median": middle,
            "samples": len(seconds), "us_per_token": best * 1e6 / (n * batch), "useful_gflops": flops / best / 1e9,
            "share_of_matmul": flops / best / self.rate, "peak_rss_bytes": peak_memory(),
            "compiled": self.options.compile, "recompute": self.options.checkpoint,
        }
        if not self.described:
            self.described = True
            record.update({
                "machine": f"{cpu_name()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()} "
                           f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
                "version": f"PyTorch {torch.__version__}", "matmul_gflops": self.rate / 1e9,
            })
        with open(self.options.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def bench_step(options, report):
    vocabulary, layers, heads, width = PRESETS[options.preset]
    batch, tokens = options.batch_size, options.context[0]
    model = Model(vocabulary, layers, heads, width, options.checkpoint, options.loss_chunk)
    text = torch.randint(vocabulary, (batch, tokens + 1))
    settings = {"lr": 0.0, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0, "grad_clip": 1.0}
    step = Step(model, (text[:, :-1].contiguous(), text[:, 1:].contiguous()), DTYPES[options.dtype], settings,
                options.compile)
    report.add("step", "step", {"n": tokens, "batch": batch, "heads": heads, "head_size": width // heads},
               measure(step, options.samples, options.compile),
               step_flops(vocabulary, layers, heads, width, batch, tokens))


def bench_attention(options, report):
    _, _, heads, width = PRESETS[options.preset]
    batch, head_size = options.batch_size, width // heads
    call = torch.compile(F.scaled_dot_product_attention) if options.compile else F.scaled_dot_product_attention
    for tokens in options.context:
        q, k, v = (torch.randn(batch, heads, tokens, head_size).to(DTYPES[options.dtype]).requires_grad_()
                   for _ in range(3))
        dout = torch.randn_like(q)

        def forward():
            with torch.no_grad():
                call(q, k, v, is_causal=True)

        def forward_backward():
            torch.autograd.grad(call(q, k, v, is_causal=True), (q, k, v), dout)

        there, back = (batch * heads * flops for flops in attention_flops(tokens, head_size))
        shape = {"n": tokens, "batch": batch, "heads": heads, "head_size": head_size}
        report.add("attention", "forward", shape, measure(forward, options.samples, options.compile), there)
        report.add("attention", "forward_backward", shape, measure(forward_backward, options.samples, options.compile),
                   there + back)


# ----------------------------------------------------------------------------------------------------- command line


def length(text):
    """512, 2k = 2048."""
    value = int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)
    if value < 1:
        raise ValueError
    return value


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attention-only", action="store_true", help="attention alone, forward and forward + backward")
    parser.add_argument("--preset", choices=PRESETS, default="mini", help="model, or heads and head size [mini]")
    parser.add_argument("--context", type=lambda text: [length(word) for word in text.split(",")], default=[512],
                        metavar="LENGTH", help="tokens a sequence, 512 or 2k; several with --attention-only [512]")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="sequences [1]")
    parser.add_argument("--threads", type=int, metavar="N", help="[all]")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16: autocast [float32]")
    parser.add_argument("--compile", action="store_true", help="torch.compile (needs g++)")
    parser.add_argument("--checkpoint", action="store_true", help="keep only the layers' inputs, recompute the rest")
    parser.add_argument("--loss-chunk", type=int, default=8192, metavar="N",
                        help="tokens whose logits exist at once; of more, all are recomputed; 0: no limit [8192]")
    parser.add_argument("--samples", type=int, default=10, metavar="N",
                        help="samples a figure; fewer where all would take over 20 s [10]")
    parser.add_argument("--json", metavar="FILE", help="append each figure there, one JSON object a line")
    options = parser.parse_args()
    if len(options.context) > 1 and not options.attention_only:
        parser.error("several contexts need --attention-only")
    return options


def main():
    options = read_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    wrong = check_golden(GOLDEN, options.dtype, 16)
    if wrong:
        print(f"pytorch_step.py: not measured, this is not polysketch's model: {', '.join(wrong)}", file=sys.stderr)
        return 1
    report = Report(options)
    (bench_attention if options.attention_only else bench_step)(options, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
