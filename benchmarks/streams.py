"""Updates a second on published streams of small batches, against a loop as one writes it in PyTorch.

    python -m benchmarks.streams [pairs]

- slowly changing regression (Dohare et al. 2024): 20-5-1, batch 1, SGD, without and with continual backprop;
- online permuted images (the same, a smaller network): 784-100-100-100-10, batch 1, likewise, on Fashion-MNIST, whose
  images have the size of MNIST's;
- permuted images (Kumar et al. 2023): 784-100-100-10, batch 16, SGD.

Each with one run and with many in one program; updates of all runs are summed. The PyTorch loop has one thread, which
is the faster choice at this size. Its continual backprop is written here from the published rule: every step utilities
move, ages grow, and mature units of the lowest utility are replaced at the stated rate.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from benchmarks.common import Lanes, machine, pairs, report, save


class Stream(NamedTuple):
    """sizes: of the network, inputs first. lanes: numbers of runs in one program. torch: updates of a PyTorch call."""

    task: str
    sizes: tuple[int, ...]
    batch: int
    lanes: tuple[int, ...]
    torch: int

    @property
    def network(self) -> str:
        return f"mlp({self.sizes[1]}, {len(self.sizes) - 2})"


IMAGES = "steps=2000, num_tasks=1000, examples_used=10000"
STREAMS = {
    "bit flipping 20-5-1, batch 1": Stream(
        "bit_flipping(steps=20000, num_tasks=1000)", (20, 5, 1), 1, (1, 8, 64), 1000
    ),
    "permuted images 784-100x3-10, batch 1": Stream(
        f"input_permutation({IMAGES}, batch_size=1)", (784, 100, 100, 100, 10), 1, (1, 8, 32), 400
    ),
    "permuted images 784-100-100-10, batch 16": Stream(
        f"input_permutation({IMAGES}, batch_size=16)", (784, 100, 100, 10), 16, (1, 8, 32), 400
    ),
}
METHODS = ("none", "continual_backprop(1e-4)")


class TorchOnline:
    """One run: SGD on random inputs of the stream's size, a squared error for one output, else cross-entropy."""

    def __init__(self, stream: Stream, recycling: bool) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch, self.stream, self.recycling = torch, stream, recycling
        self.layers = [torch.nn.Linear(a, b) for a, b in zip(stream.sizes[:-1], stream.sizes[1:], strict=True)]
        self.optimizer = torch.optim.SGD([p for layer in self.layers for p in layer.parameters()], 0.01)
        hidden = stream.sizes[1:-1]
        self.utility = [torch.zeros(units) for units in hidden]
        self.age = [torch.zeros(units) for units in hidden]
        self.due = [0.0 for _ in hidden]
        self.x = torch.rand(2000, stream.sizes[0])
        self.y = torch.randn(2000, 1) if stream.sizes[-1] == 1 else torch.randint(0, stream.sizes[-1], (2000,))
        self()

    def __call__(self) -> None:
        torch, batch = self.torch, self.stream.batch
        loss_of = torch.nn.functional.mse_loss if self.stream.sizes[-1] == 1 else torch.nn.functional.cross_entropy
        total = torch.zeros(())
        for step in range(self.stream.torch):
            start = step * batch % (2000 - batch)
            h, features = self.x[start : start + batch], []
            for layer in self.layers[:-1]:
                h = torch.relu(layer(h))
                features.append(h)
            loss = loss_of(self.layers[-1](h), self.y[start : start + batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            if self.recycling:
                with torch.no_grad():
                    self.recycle(features)

    def recycle(self, features: list[Any], rate: float = 1e-4, decay: float = 0.99, maturity: int = 100) -> None:
        torch = self.torch
        for i, h in enumerate(features):
            into, out = self.layers[i], self.layers[i + 1]
            self.age[i] += 1
            self.utility[i] *= decay
            self.utility[i] += (1 - decay) * h.abs().mean(0) * out.weight.abs().mean(0)
            corrected = self.utility[i] / (1 - decay ** self.age[i])
            mature = self.age[i] > maturity
            self.due[i] += rate * float(mature.sum())
            count = int(self.due[i])
            if not count:
                continue
            self.due[i] -= count
            chosen = torch.topk(torch.where(mature, corrected, torch.inf), count, largest=False).indices
            fresh = torch.empty(count, into.weight.shape[1])
            torch.nn.init.kaiming_uniform_(fresh)
            into.weight[chosen], into.bias[chosen], out.weight[:, chosen] = fresh, 0.0, 0.0
            self.age[i][chosen], self.utility[i][chosen] = 0.0, 0.0


def main(count: int = 3) -> None:
    origin, rows = machine(), []
    for name, stream in STREAMS.items():
        for method in METHODS:
            if method != "none" and stream.batch > 1:
                continue
            torch = TorchOnline(stream, method != "none")
            for lanes in stream.lanes:
                suite = Lanes(stream.task, stream.network, "sgd(0.01)", lanes, mitigations=method)
                timed = pairs(torch, suite, count)
                ours, theirs = suite.updates / timed.b, stream.torch / timed.a
                # Of updates a second, not of calls, which make different numbers of them.
                scale = suite.updates / stream.torch
                row = {"stream": name, "method": method, "runs": lanes, "suite, updates/s": ours}
                row |= {"PyTorch, updates/s": theirs, "times": timed.ratio * scale}
                rows.append(row | {"lowest": timed.low * scale, "highest": timed.high * scale})
                print({k: round(v, 1) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
                save("streams", origin, rows)
    report("streams", origin, rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
