"""torch's own tools around a model that uses the library: compile, autocast, checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelnet_triton.integrations import PointHead

from .network import Network, batch_of, loss_of, network


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


class CountingBackend:
    """A `torch.compile` backend that counts the graphs it is handed."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)


@pytest.fixture
def backend() -> Iterator[CountingBackend]:
    torch._dynamo.reset()
    yield CountingBackend()
    torch._dynamo.reset()


def graphs_after(model: Network, backend: CountingBackend, batches: list[Any]) -> list[int]:
    """Graphs compiled so far, after a training step on each batch; losses are those of eager."""
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    counts = []
    for batch in batches:
        loss = loss_of(compiled, *batch)
        torch.testing.assert_close(loss, loss_of(model, *batch))
        loss.backward()
        counts.append(backend.graphs)
    return counts


class TestCompile:
    def test_one_graph_for_all_numbers_of_points(self, backend: CountingBackend) -> None:
        batches = [batch_of(points=points) for points in (5, 6, 100, 17, 1000)]
        assert graphs_after(network(), backend, batches) == [1, 2, 2, 2, 2]

    def test_with_strides_one_graph_for_all_image_sizes(self, backend: CountingBackend) -> None:
        """The ratio of the sizes is a constant of the graph; a stride is the same for all."""
        batches = [batch_of(size=size) for size in (32, 36, 64, 35, 70, 91)]
        model = network(strides=[2, 4])
        assert graphs_after(model, backend, batches) == [1, 2, 2, 2, 2, 2]

    def test_point_head(self, backend: CountingBackend) -> None:
        head = PointHead([8], channels=16, num_classes=3)
        inputs = ([torch.randn(2, 8, 16, 16)], torch.randn(2, 3, 8, 8), torch.rand(2, 50, 2))
        compiled = torch.compile(head, backend=backend, fullgraph=True)
        expected, actual = head(*inputs), compiled(*inputs)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(
            gradients(head, actual.square().sum()), gradients(head, expected.square().sum())
        )

    def test_under_autocast(self, backend: CountingBackend) -> None:
        model, batch = network(), batch_of()
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(loss_of(compiled, *batch), loss_of(model, *batch))


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_autocast_trains_as_single_precision(self, dtype: torch.dtype) -> None:
        batch = batch_of(points=200)
        losses: dict[bool, list[float]] = {}
        for enabled in (False, True):
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            losses[enabled] = []
            for _ in range(10):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype, enabled=enabled):
                    loss = loss_of(model, *batch)
                loss.backward()
                assert all(p.grad.dtype == torch.float32 for p in model.parameters())
                optimizer.step()
                losses[enabled].append(loss.item())
        assert losses[False][-1] < losses[False][0] - 0.01
        # one part in 128 (bfloat16) of a logarithm of four classes
        assert losses[True] == pytest.approx(losses[False], abs=0.01)

    def test_grad_scaler_skips_the_step_that_overflows(self) -> None:
        """float16: a scale of 2^40 overflows, is halved until it does not, and trains then."""
        model, batch = network(), batch_of()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-8)
        before = [p.detach().clone() for p in model.parameters()]
        scales = []
        for _ in range(6):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_of(model, *batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        assert scales[0] == 2.0**32
        assert scales[-1] == scales[-2] > 1, "the last steps are taken"
        pairs = zip(before, model.parameters(), strict=True)
        assert all(torch.isfinite(p).all() and not torch.equal(p, old) for old, p in pairs)


class Checkpointed(nn.Module):
    def __init__(self, model: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, *inputs: Tensor) -> Tensor:
        return checkpoint(self.model, *inputs, use_reentrant=self.reentrant)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("reentrant", [False, True], ids=["checkpoint", "reentrant"])
def test_activation_checkpointing(reentrant: bool, activation: str) -> None:
    """Bit for bit: what is computed again is the same."""
    model = network(activation)
    images, points, labels = batch_of()
    images.requires_grad_()  # the reentrant kind wants an input with a gradient
    torch.use_deterministic_algorithms(True)
    expected = gradients(model, loss_of(model, images, points, labels))
    loss = loss_of(Checkpointed(model, reentrant), images, points, labels)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name


def test_meta_device_initialisation() -> None:
    """Large models are built on `meta`, materialised, and initialised there."""
    with torch.device("meta"):
        model = Network()
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert torch.isfinite(loss_of(model, *batch_of()))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    """Not run without a GPU."""

    def on_gpu(self) -> tuple[Network, list[Tensor]]:
        return network().cuda(), [tensor.cuda() for tensor in batch_of(points=200)]

    def test_a_training_step_is_captured_in_a_cuda_graph(self) -> None:
        model, batch = self.on_gpu()
        expected = gradients(model, loss_of(model, *batch))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm up, as torch.cuda.graph asks
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                loss_of(model, *batch).backward()
        torch.cuda.current_stream().wait_stream(side)
        model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss_of(model, *batch).backward()
        graph.replay()
        torch.cuda.synchronize()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name])

    def test_calls_on_two_streams_do_not_disturb_each_other(self) -> None:
        model, batch = self.on_gpu()
        with torch.no_grad():
            expected = model(*batch[:2])
            streams = [torch.cuda.Stream() for _ in range(2)]
            torch.cuda.synchronize()
            results = []
            for _ in range(20):
                for stream in streams:
                    with torch.cuda.stream(stream):
                        results.append(model(*batch[:2]))
            torch.cuda.synchronize()
        for result in results:
            torch.testing.assert_close(result, expected)
