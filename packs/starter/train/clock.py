"""Parts of training loops: budgets, learning rates that reach their end on time, averages."""

import copy
import math
import time

import torch


class Clock:
    """Progress 0..1 of a training run: of its processor seconds, at most its wall-clock limit.

    On a machine shared with other work the budget keeps the number of steps, the limit the time.
    """

    def __init__(self, cpu_s: float, wall_s: float) -> None:
        self.cpu_s, self.wall_s = cpu_s, wall_s
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def progress(self) -> float:
        """Elapsed share, at most 1."""
        cpu = (time.process_time() - self._cpu) / self.cpu_s
        return min(max(cpu, (time.monotonic() - self._wall) / self.wall_s), 1.0)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, peak: float, progress: float, warmup: float = 0.03
) -> None:
    """Linear warm-up, then cosine to 2 % of ``peak``."""
    ramp = min(progress / warmup, 1.0)
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = peak * ramp * cosine * group.get("lr_scale", 1.0)


class Average:
    """Exponential moving average of a model's weights; the decay grows with the step count."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.999) -> None:
        self.model, self.decay, self.steps = (
            copy.deepcopy(model).eval().requires_grad_(False),
            decay,
            0,
        )

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take one step toward ``model``."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged = list(self.model.parameters())
        current = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)


def decay_groups(*models: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: matrices decay, vectors do not."""
    parameters = [p for model in models for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
