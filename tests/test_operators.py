"""The operators as torch sees them: schema, tracing, autograd, autocast, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelnet_triton import HypercolumnLinear, sparse_hypercolumn
from pixelnet_triton.call.geometry import layer_geometry
from pixelnet_triton.cpu import routes
from pixelnet_triton.integrations.export import export
from pixelnet_triton.op import forget_calls

from .cases import Case, Inputs, build, case_id
from .check import check_case, evaluate, upstream_gradient
from .conftest import takes_float64

OPERATORS = torch.ops.pixelnet_triton

_LAYERS = ((8, 6, 8), (5, 3, 4))
LINEAR = Case("linear", _LAYERS, points=7, image_size=(12, 16), out_features=6)
OPERATOR_CASES = [
    Case("gather", _LAYERS, points=7, image_size=(12, 16)),
    LINEAR,
    Case("relu", _LAYERS, points=7, image_size=(12, 16), out_features=6, activation="relu"),
    Case("ragged", _LAYERS, points=7, image_size=(12, 16), out_features=6, ragged=True),
    Case("channels_last", _LAYERS, image_size=(12, 16), layout="channels_last", out_features=6),
    Case("sliced", _LAYERS, image_size=(12, 16), layout="sliced", contiguous=False),
    Case("integer", _LAYERS, image_size=(12, 16), point_dtype=torch.int64, out_features=6),
    Case("nearest", _LAYERS, image_size=(12, 16), interpolation="nearest", bias=False).linear(),
    Case("zeros", _LAYERS, image_size=(12, 16), spread="outside", padding_mode="zeros"),
    Case("no-points", _LAYERS, image_size=(12, 16), points=0, out_features=6),
]


def operator_arguments(inputs: Inputs) -> tuple[Any, ...]:
    """Positional arguments of `pixelnet_triton::sparse_hypercolumn`."""
    case = inputs.case
    geometry = layer_geometry(
        [(rows, columns) for _, rows, columns in case.layers],
        case.image_size,
        interpolation=case.interpolation,
        padding_mode=case.padding_mode,
    )
    points = inputs.points if case.ragged else inputs.points.flatten(0, 1)
    return (
        points,
        inputs.batch_index,
        inputs.weight,
        inputs.bias,
        inputs.features,
        geometry.flat(),
        case.interpolation,
        case.padding_mode,
        case.activation,
        "auto",
        True,
        inputs.points.is_floating_point(),
    )


def leaves(inputs: Inputs) -> list[Tensor]:
    return [tensor.requires_grad_() for tensor in inputs.tensors().values()]


class TestRegistration:
    # opcheck itself looks at the .grad of what is no leaf (torch 2.14)
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("case", OPERATOR_CASES, ids=case_id)
    def test_forward_operator(self, case: Case, device: torch.device) -> None:
        inputs = build(case, device)
        points, *arguments = operator_arguments(inputs)
        leaves(inputs)
        if points.is_floating_point():
            points = points.detach().requires_grad_()
        torch.library.opcheck(OPERATORS.sparse_hypercolumn.default, (points, *arguments))

    @pytest.mark.parametrize("case", OPERATOR_CASES, ids=case_id)
    def test_backward_operator(self, case: Case, device: torch.device) -> None:
        inputs = build(case, device)
        points, batch_index, weight, bias, features, *settings, activation, plan, _, _ = (
            operator_arguments(inputs)
        )
        output = OPERATORS.sparse_hypercolumn(*operator_arguments(inputs))
        needs = [
            points.is_floating_point(),
            weight is not None,
            bias is not None,
            True,
            False,  # one layer without a gradient
        ]
        arguments = (
            torch.randn_like(output),
            points,
            batch_index,
            weight,
            output if activation == "relu" else None,
            features,
            *settings,
            plan,
            needs,
        )
        torch.library.opcheck(OPERATORS.sparse_hypercolumn_backward.default, arguments)

    @pytest.mark.parametrize("case", OPERATOR_CASES, ids=case_id)
    def test_both_doors_lead_to_the_same_result(
        self, case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Eager calls go by an autograd function, traced ones by the registered operator."""
        monkeypatch.setattr(routes, "_may_keep", lambda shape, read: False)  # no expressions
        forget_calls()

        def registered(**arguments: Any) -> Tensor:
            rows = OPERATORS.sparse_hypercolumn(*operator_arguments(inputs))
            return rows if case.ragged else rows.unflatten(0, arguments["points"].shape[:2])

        inputs = build(case, device)
        grad = upstream_gradient(inputs)
        torch.use_deterministic_algorithms(True)
        eager = evaluate(sparse_hypercolumn, inputs, grad)
        traced = evaluate(registered, inputs, grad)
        forget_calls()
        torch.testing.assert_close(traced, eager, rtol=0, atol=0)


class TestGradients:
    @pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
    @pytest.mark.parametrize("padding_mode", ["border", "zeros"])
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    def test_by_finite_differences(
        self, activation: str | None, padding_mode: str, interpolation: str, device: torch.device
    ) -> None:
        if not takes_float64(device):
            pytest.skip("finite differences need float64")
        case = Case(
            "gradcheck",
            ((2, 3, 4), (1, 2, 2)),
            points=3,
            image_size=(6, 8),
            out_features=4,
            activation=activation,
            dtype=torch.float64,
            point_dtype=torch.float64,
            padding_mode=padding_mode,
            interpolation=interpolation,
        )
        inputs = build(case, device)
        # nearest: steps, not slopes, so the points keep still
        points = inputs.points.requires_grad_(interpolation == "bilinear")
        leaf_tensors = [t.requires_grad_() for t in (inputs.weight, inputs.bias, *inputs.features)]

        def call(points: Tensor, weight: Tensor, bias: Tensor, *features: Tensor) -> Tensor:
            changes = {"features": features, "points": points, "weight": weight, "bias": bias}
            return sparse_hypercolumn(**inputs.arguments(**changes))

        assert torch.autograd.gradcheck(call, (points, *leaf_tensors))

    @pytest.mark.parametrize("wanted", ["features[0]", "features[1]", "weight", "bias", "points"])
    def test_of_one_input_alone(self, wanted: str, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        grad = upstream_gradient(inputs)
        expected = evaluate(sparse_hypercolumn, inputs, grad)[wanted]
        tensor = inputs.tensors()[wanted].requires_grad_()
        sparse_hypercolumn(**inputs.arguments()).backward(grad)
        torch.testing.assert_close(tensor.grad, expected)
        others = [t for name, t in inputs.tensors().items() if name != wanted]
        assert all(other.grad is None for other in others)

    def test_no_graph_without_need(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        assert sparse_hypercolumn(**inputs.arguments()).grad_fn is None
        leaves(inputs)
        assert sparse_hypercolumn(**inputs.arguments()).grad_fn is not None
        with torch.no_grad():
            assert sparse_hypercolumn(**inputs.arguments()).grad_fn is None

    def test_frozen_inputs_of_an_empty_call_stay_without_gradient(
        self, device: torch.device
    ) -> None:
        inputs = build(OPERATOR_CASES[-1], device)
        inputs.weight.requires_grad_()
        sparse_hypercolumn(**inputs.arguments()).sum().backward()
        assert torch.equal(inputs.weight.grad, torch.zeros_like(inputs.weight))
        assert inputs.features[0].grad is None

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    def test_inference(self, activation: str | None, mode: Any, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        expected = sparse_hypercolumn(**inputs.arguments(activation=activation))
        leaves(inputs)
        with mode():
            actual = sparse_hypercolumn(**inputs.arguments(activation=activation))
        assert not actual.requires_grad
        assert actual.is_inference() == (mode is torch.inference_mode)
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("maps", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("points", [20, 2000])
    @pytest.mark.parametrize("plan", ["auto", "gather", "project"])
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    def test_a_head_is_trained_on_maps_of_a_frozen_backbone(
        self, activation: str | None, plan: str, points: int, maps: Any, device: torch.device
    ) -> None:
        """Small calls are expressions, which autograd keeps other tensors of."""
        case = Case("frozen", ((64, 14, 14), (32, 7, 7)), image_size=(28, 28), points=points)
        inputs = build(case.linear(8, activation=activation), device)
        grad = upstream_gradient(inputs)

        def trained() -> list[Tensor]:
            leaf_tensors = [inputs.weight, inputs.bias]
            for leaf in leaf_tensors:
                leaf.requires_grad_()
            value = sparse_hypercolumn(**inputs.arguments(plan=plan))
            return list(torch.autograd.grad(value, leaf_tensors, grad))

        expected = trained()
        with maps():
            inputs.features = [feature * 1 for feature in inputs.features]
            inputs.points = inputs.points * 1
        for result, wanted in zip(trained(), expected, strict=True):
            assert torch.equal(result, wanted)

    def test_inference_first_does_not_spoil_training(self, device: torch.device) -> None:
        """What is cached by the first call must serve a later one that needs gradients."""
        case = Case("fresh", ((4, 5, 9), (3, 2, 11)), image_size=(19, 23), points=5)
        inputs = build(case.linear(6), device)  # sizes of no other test
        with torch.inference_mode():
            sparse_hypercolumn(**inputs.arguments())
        check_case(case.linear(6), device)

    @pytest.mark.parametrize("activation", [None, "relu"])
    def test_nothing_but_inputs_and_output_is_kept_for_backward(
        self, activation: str | None, device: torch.device
    ) -> None:
        inputs = build(LINEAR, device)
        tensors = leaves(inputs)
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = sparse_hypercolumn(**inputs.arguments(activation=activation))
        allowed = {tensor.data_ptr() for tensor in (*tensors, value)}
        assert kept
        assert {tensor.data_ptr() for tensor in kept} <= allowed

    def test_an_input_changed_in_place_is_noticed(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        inputs.weight.requires_grad_()
        value = sparse_hypercolumn(**inputs.arguments(plan="gather"))
        inputs.features[0].zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.sum().backward()


class TestAutocast:
    @pytest.mark.parametrize("activation", [None, "relu", "gelu"])
    def test_casts_maps_weight_and_bias(self, activation: str | None, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        low = build(LINEAR, device)
        low.features = [feature.bfloat16() for feature in low.features]
        low.weight, low.bias = low.weight.bfloat16(), low.bias.bfloat16()
        leaves(low)
        expected = sparse_hypercolumn(**low.arguments(activation=activation))

        tensors = leaves(inputs)
        with torch.autocast(device.type, torch.bfloat16):
            actual = sparse_hypercolumn(**inputs.arguments(activation=activation))
        assert actual.dtype == torch.bfloat16
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
        actual.sum().backward()
        assert all(tensor.grad.dtype == torch.float32 for tensor in tensors)

    def test_reconciles_a_half_map_with_single_parameters(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        inputs.features[1] = inputs.features[1].bfloat16()
        with torch.autocast(device.type, torch.bfloat16):
            assert sparse_hypercolumn(**inputs.arguments()).dtype == torch.bfloat16
        with pytest.raises(TypeError, match=r"under torch\.autocast"):
            sparse_hypercolumn(**inputs.arguments())

    def test_leaves_float64_alone(self, device: torch.device) -> None:
        """As torch's own operators do."""
        inputs = build(LINEAR, torch.device("cpu"))
        arguments = inputs.arguments(
            features=[f.double() for f in inputs.features],
            weight=inputs.weight.double(),
            bias=inputs.bias.double(),
        )
        expected = sparse_hypercolumn(**arguments)
        with torch.autocast("cpu", torch.bfloat16):
            actual = sparse_hypercolumn(**arguments)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    def test_points_keep_their_precision(self, device: torch.device) -> None:
        """In bfloat16 pixel 1001 of 2048 would be pixel 1000."""
        ramp = torch.arange(2048.0, device=device).reshape(1, 1, 1, -1) % 2
        points = torch.tensor([[[1001.0, 0.0], [1000.0, 0.0]]], device=device)
        with torch.autocast(device.type, torch.bfloat16):
            value = sparse_hypercolumn([ramp], points, (1, 2048))
        assert value.flatten().tolist() == [1.0, 0.0]


class _Recorder:
    """A `torch.compile` backend that counts the graphs it is handed."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: Sequence[Tensor]) -> Any:
        self.graphs += 1
        return torch._dynamo.lookup_backend(self.backend)(graph, examples)


@pytest.fixture
def fresh_dynamo() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
class TestCompile:
    @pytest.mark.parametrize("case", OPERATOR_CASES[:6], ids=case_id)
    def test_full_graph(self, case: Case, device: torch.device) -> None:
        inputs = build(case, device)
        grad = upstream_gradient(inputs)
        torch.use_deterministic_algorithms(True)
        compiled = torch.compile(sparse_hypercolumn, backend="aot_eager", fullgraph=True)
        actual = evaluate(compiled, inputs, grad)
        torch.testing.assert_close(
            actual, evaluate(sparse_hypercolumn, inputs, grad), rtol=0, atol=0
        )

    def test_strides_that_become_symbols(self, device: torch.device) -> None:
        """Of one layer after another, where Dynamo does not specialise a second number."""
        inputs = build(LINEAR, device)
        count, options = len(inputs.features), {"backend": "eager", "fullgraph": True}
        compiled = torch.compile(sparse_hypercolumn, **options)  # type: ignore[call-overload]
        for stride in (2.0, 4.0, 3.0):
            arguments = inputs.arguments(strides=[stride * (i + 1) for i in range(count)])
            torch.testing.assert_close(compiled(**arguments), sparse_hypercolumn(**arguments))

    def test_gelu(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        grad = upstream_gradient(inputs)
        compiled = torch.compile(sparse_hypercolumn, backend="aot_eager", fullgraph=True)
        actual = evaluate(compiled, inputs, grad, activation="gelu")
        expected = evaluate(sparse_hypercolumn, inputs, grad, activation="gelu")
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("ragged", [False, True], ids=["uniform", "ragged"])
    def test_one_graph_for_all_point_counts(self, ragged: bool, device: torch.device) -> None:
        recorder = _Recorder("aot_eager")
        compiled = torch.compile(sparse_hypercolumn, backend=recorder, fullgraph=True)
        graphs = []
        for points in (4, 5, 12, 33, 64):
            case = Case("dynamic", _LAYERS, points=points, image_size=(12, 16), ragged=ragged)
            inputs = build(case.linear(6), device)
            leaves(inputs)
            actual = compiled(**inputs.arguments())
            torch.testing.assert_close(actual, sparse_hypercolumn(**inputs.arguments()))
            actual.sum().backward()
            graphs.append(recorder.graphs)
        # one graph for the first count, one for all others
        assert graphs == [1, 2, 2, 2, 2]

    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, on import
    def test_inductor(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        grad = upstream_gradient(inputs)
        compiled = torch.compile(sparse_hypercolumn, backend="inductor", fullgraph=True)
        actual = evaluate(compiled, inputs, grad)
        torch.testing.assert_close(actual, evaluate(sparse_hypercolumn, inputs, grad))

    def test_bad_input_is_refused_by_name(self, device: torch.device) -> None:
        inputs = build(LINEAR, device)
        compiled = torch.compile(sparse_hypercolumn, backend="aot_eager")
        with pytest.raises(Exception, match=r"weight has shape \(6, 12\); expected \(D, 13\)"):
            compiled(**inputs.arguments(weight=inputs.weight[:, 1:]))


class TestJitTrace:
    FEATURE, POINTS = torch.randn(1, 8, 8, 8), torch.rand(1, 5, 2) * 64

    @staticmethod
    def network() -> torch.nn.Module:
        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = HypercolumnLinear([8], 4)

            def forward(self, feature: Tensor, points: Tensor) -> Tensor:
                return self.first([feature], points, (64, 64))

        return Network().eval()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
    def test_is_refused_with_the_way_out(self) -> None:
        """Also of a call that is known, which would be recorded as it was chosen."""
        network = self.network()
        with torch.no_grad():
            network(self.FEATURE, self.POINTS)
            with pytest.raises(RuntimeError, match=r"torch\.jit\.trace .*export\.export"):
                torch.jit.trace(network, (self.FEATURE, self.POINTS))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
    def test_the_way_out_works(self) -> None:
        network = self.network()
        program = export(network, (self.FEATURE, self.POINTS))
        traced = torch.jit.trace(program.module(), (self.FEATURE, self.POINTS))
        other = torch.randn(1, 8, 8, 8), torch.rand(1, 5, 2) * 64
        torch.testing.assert_close(traced(*other), network(*other))
