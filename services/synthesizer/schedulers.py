"""How noise is taken out: the scheduler of a request, from the weights' own configuration.

What the network predicts (noise or velocity) and the betas it was trained with come with the
weights and are kept; a request chooses only how the steps are taken.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from dnd.errors import BadSetting

MODEL: Final = "model"
"""The scheduler that comes with the weights."""

# Latents are not pixels: clipping them to -1..1, the default of two of these classes, spoils them.
_CLASSES: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "lcm": (LCMScheduler, {"clip_sample": False}),
}
SCHEDULERS: Final = (*_CLASSES, MODEL)


def make_scheduler(name: str, own: Any, choices: Collection[str] = SCHEDULERS) -> Any:
    """A fresh scheduler.

    Args:
        name: One of `choices`.
        own: The scheduler that comes with the weights.
        choices: What the pipeline can work with.

    Raises:
        BadSetting: `name` is none of the choices.
    """
    if name not in choices:
        raise BadSetting(
            f"settings.scheduler is {name!r}: expected one of "
            f"{', '.join(repr(choice) for choice in choices)}."
        )
    cls, changes = (type(own), {}) if name == MODEL else _CLASSES[name]
    return cls.from_config(own.config, **changes)


def check_steps(name: str, scheduler: Any, num_steps: int) -> None:
    """Raises BadSetting if `scheduler` cannot take `num_steps` steps."""
    try:
        scheduler.set_timesteps(num_steps)
    except ValueError as error:
        detail = " ".join(str(error).split())[:200]
        raise BadSetting(
            f"settings.num_steps is {num_steps}: scheduler {name!r} of these weights cannot take "
            f"so many steps: {detail}"
        ) from None
