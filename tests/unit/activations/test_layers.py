"""Any layer's output as units: form, pooling, maps, and the pass that reads it."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import networks
from torch import Tensor, nn
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm

from dnd.errors import InvalidInput, UnknownName
from dnd.profiles import Pooling
from dnd.types import LayerKind
from dnd_services.activations.layers import (
    LayerOutput,
    find_modules,
    maps_of,
    pool,
    read_output,
    run_with_hooks,
    token_grid,
)

SQUARE = (32, 32)


def output_of(kind: LayerKind, *shape: int) -> LayerOutput:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return LayerOutput(kind, values, shape[1:])


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        (LayerKind.CONV, (2, 5, 3, 4), (2, 3)),
        (LayerKind.LINEAR, (2, 5), ()),
        (LayerKind.TOKENS, (2, 16, 5), (1,)),
    ],
)
def test_mean_and_max_are_over_positions(
    kind: LayerKind, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    output = output_of(kind, *shape)
    mean, highest = (pool(output, how, SQUARE) for how in (Pooling.MEAN, Pooling.MAX))
    assert mean.shape == highest.shape == (2, 5)
    torch.testing.assert_close(mean, output.values.mean(axes) if axes else output.values)
    torch.testing.assert_close(highest, output.values.amax(axes) if axes else output.values)


def test_tokens_in_front_of_the_picture_do_not_count() -> None:
    output = output_of(LayerKind.TOKENS, 2, 17, 5)
    torch.testing.assert_close(
        pool(output, Pooling.MEAN, SQUARE), output.values[:, 1:].mean(1), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(pool(output, Pooling.MAX, SQUARE), output.values[:, 1:].amax(1))
    torch.testing.assert_close(pool(output, Pooling.CLS, SQUARE), output.values[:, 0])


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (LayerKind.CONV, (2, 5, 3, 4)),
        (LayerKind.LINEAR, (2, 5)),
        (LayerKind.TOKENS, (2, 16, 5)),  # all of them the picture's
        (LayerKind.TOKENS, (2, 15, 5)),  # no picture in them at all
    ],
)
def test_class_token_is_refused_where_there_is_none(
    kind: LayerKind, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidInput, match="use 'mean' or 'max'"):
        pool(output_of(kind, *shape), Pooling.CLS, SQUARE)


@pytest.mark.parametrize(
    ("num_tokens", "size", "grid"),
    [
        (196, (224, 224), (0, 14, 14)),
        (197, (224, 224), (1, 14, 14)),
        (198, (224, 224), (2, 14, 14)),
        (201, (224, 224), (5, 14, 14)),
        (2, (32, 32), (1, 1, 1)),
        (33, (64, 32), (1, 8, 4)),
        (7, (32, 32), (3, 2, 2)),
        (203, (224, 224), None),
    ],
)
def test_grid_of_tokens_has_the_aspect_of_the_input(
    num_tokens: int, size: tuple[int, int], grid: tuple[int, int, int] | None
) -> None:
    assert token_grid(output_of(LayerKind.TOKENS, 1, num_tokens, 3), size) == grid


def test_map_of_a_token_layer_has_each_token_at_its_place() -> None:
    output = output_of(LayerKind.TOKENS, 2, 17, 5)
    maps = maps_of(output, SQUARE)
    assert maps is not None
    assert maps.shape == (2, 5, 4, 4)
    torch.testing.assert_close(maps[1, 3, 2, 1], output.values[1, 1 + 2 * 4 + 1, 3])


def test_vectors_have_no_maps() -> None:
    assert maps_of(output_of(LayerKind.LINEAR, 2, 5), SQUARE) is None


@pytest.mark.parametrize(
    ("module", "shape", "num_units"),
    [
        (nn.Conv2d(3, 8, 1), (2, 8, 6, 6), 8),
        (nn.Conv2d(3, 6, 1), (2, 6, 6, 8), 6),
        (nn.Linear(3, 8), (2, 6, 6, 8), 8),
        (nn.LayerNorm(8), (2, 6, 6, 8), 8),
        (nn.GELU(), (2, 6, 6, 8), 8),  # after a linear layer
        (nn.GELU(), (2, 8, 6, 6), 8),  # after a convolution
        (ConvNextLayerNorm(8, data_format="channels_first"), (2, 8, 6, 6), 8),
        (ConvNextLayerNorm(8, data_format="channels_last"), (2, 6, 6, 8), 8),
    ],
)
def test_units_are_on_the_axis_that_the_module_computes_them_on(
    module: nn.Module, shape: tuple[int, ...], num_units: int
) -> None:
    read = read_output(module, torch.zeros(shape), 2)
    assert read is not None
    assert (read.kind, read.num_units, read.shape) == (LayerKind.CONV, num_units, shape[1:])


@pytest.mark.parametrize(
    "output",
    [
        torch.zeros(3, 5),  # of another batch
        torch.zeros(2),
        torch.zeros(2, 1, 2, 3, 4),
        torch.zeros(2, 5, dtype=torch.int64),
        torch.zeros(2, 0),
        (None, 3),
        "text",
    ],
)
def test_output_without_units_is_none(output: object) -> None:
    assert read_output(nn.Identity(), output, 2) is None


@pytest.mark.parametrize("wrap", [lambda t: (t, None), lambda t: {"a": None, "hidden": t}])
def test_first_tensor_of_a_structure_counts(wrap: object) -> None:
    read = read_output(nn.Identity(), wrap(torch.ones(2, 5)), 2)  # type: ignore[operator]
    assert read is not None
    assert read.num_units == 5


def read_all(module: nn.Module, layers: list[str], inputs: Tensor) -> dict[str, Tensor]:
    def copy(_: str, output: LayerOutput) -> Tensor:
        return output.values.clone()

    with torch.inference_mode():
        return run_with_hooks(module, find_modules(module, layers), inputs, copy)


def test_output_is_read_before_a_later_layer_writes_over_it() -> None:
    module = networks.load_cnn().module.eval()
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = read_all(module, ["conv1"], inputs)["conv1"]
    with torch.inference_mode():
        torch.testing.assert_close(found, module.conv1(inputs))  # type: ignore[operator]
    assert found.min() < 0


def test_hooks_are_gone_after_a_pass_even_if_it_fails() -> None:
    module = networks.load_cnn().module.eval()
    with pytest.raises(RuntimeError):
        read_all(module, ["conv1"], torch.zeros(1, 5, 32, 32))
    assert not any(m._forward_hooks for m in module.modules())


def test_pass_ends_with_the_last_layer_that_is_asked_for() -> None:
    module = networks.load_cnn().module.eval()
    ran: list[str] = []
    for name, part in module.named_children():
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
    modules = find_modules(module, ["conv1"])
    run_with_hooks(module, modules, torch.zeros(1, 3, 32, 32), lambda *_: None, {"conv1": 1})
    assert ran == ["conv1"]


def test_module_that_runs_twice_counts_with_its_last_run() -> None:
    module = networks.load_cnn().module.eval()
    inputs = torch.randn(2, 3, 32, 32)
    last = read_all(module, ["conv2", "relu"], inputs)
    assert last["relu"].shape == last["conv2"].shape
    found: dict[str, Tensor] = run_with_hooks(
        module, find_modules(module, ["relu"]), inputs, lambda _, o: o.values, {"relu": 2}
    )
    torch.testing.assert_close(found["relu"], last["relu"])


def test_unknown_layer_names_near_ones_and_how_to_list_them() -> None:
    with pytest.raises(UnknownName, match=r"'conv3'.*Did you mean 'conv[12]'.*dnd layers"):
        find_modules(networks.load_cnn().module, ["conv1", "conv3"])


def test_mean_of_half_precision_is_taken_in_single() -> None:
    values = torch.full((1, 1, 300, 300), 7.0, dtype=torch.float16)
    pooled = pool(LayerOutput(LayerKind.CONV, values, (1, 300, 300)), Pooling.MEAN, SQUARE)
    assert math.isclose(float(pooled), 7.0)
