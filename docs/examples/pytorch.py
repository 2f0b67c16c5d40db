"""Diagnostics in a plain PyTorch loop."""

import torch
from torch import nn

import plasticity
from plasticity.adapters.torch import Watch

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
watch, monitor = Watch(model), plasticity.Monitor(every=50, learning_rate=1e-3)

for step in range(201):
    x = torch.randn(256, 20)
    loss = ((model(x) - x[:, :1].sin()) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    with watch.stepping():
        optimizer.step()
    if monitor.due(step):
        monitor.record(step, **watch.readings(), loss=loss)
print(monitor.table())
print(monitor.explain())
