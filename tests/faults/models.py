"""Faults of the network: normalisation, backbone, head."""

from .fault import Fault

_NORMALIZATION = "pixelnet_triton/models/normalization.py"
_VGG = "pixelnet_triton/models/vgg.py"
_WEIGHTS = "pixelnet_triton/models/vgg_weights.py"
_HEAD = "pixelnet_triton/models/head.py"
_BACKBONES = "pixelnet_triton/models/backbones.py"
_INPUTS = ("tests/test_models_inputs.py",)
_DENSE = ("tests/test_inference.py",)
_STRIDES = ("tests/test_models_strides.py",)
_FILES = ("tests/test_models_config.py::TestFiles",)
_PROBE = "pixelnet_triton/models/probe.py"
_CHECKPOINT = "pixelnet_triton/models/checkpoint.py"
_PAPER = ("tests/test_training_paper.py",)

FAULTS = (
    Fault(
        "strides-by-the-cells-alone",
        _PROBE,
        "if stride <= 64 and (2 * stride).is_integer():",
        "if stride <= 64:",
        _STRIDES,
    ),
    Fault(
        "one-stride-for-both-axes",
        _PROBE,
        "horizontal = _stride(name, one.shape[3], across.shape[3])",
        "horizontal = vertical",
        _STRIDES,
    ),
    Fault(
        "a-checkpoint-left-by-an-exception",
        "pixelnet_triton/models/tapped.py",
        "and not _exporting() and not in_checkpoint:",
        "and not _exporting():",
        _STRIDES,
    ),
    Fault(
        "shift-modulo-the-coarsest-stride",
        "pixelnet_triton/models/tapped.py",
        "common = math.lcm(*strides)",
        "common = max(strides)",
        _STRIDES,
    ),
    Fault(
        "wrapped-patches-not-looked-at",
        "pixelnet_triton/models/wrapped.py",
        'self.strides_concluded = not hasattr(network, "strides")',
        "self.strides_concluded = False",
        _STRIDES,
    ),
    Fault(
        "loaded-in-float32",
        _CHECKPOINT,
        "tensor.data = tensor.data.to(tensors[name].dtype)",
        "pass",
        _FILES,
    ),
    Fault(
        "saved-with-the-output-it-was-built-with",
        _CHECKPOINT,
        "return dataclasses.replace(model.config, output=model.output, layout=model.layout)",
        "return model.config",
        _FILES,
    ),
    Fault(
        "saved-under-the-names-of-compiled-parts",
        _CHECKPOINT,
        "for name, tensor in _plain_names(model.state_dict()).items()",
        "for name, tensor in model.state_dict().items()",
        _FILES,
    ),
    Fault(
        "constants-rounded-with-the-module",
        _NORMALIZATION,
        "            setattr(self, name, self._constant(name, self.get_buffer(name).device))",
        "            pass",
        _INPUTS,
    ),
    Fault(
        "infinite-cells-spread-over-a-tile",
        "pixelnet_triton/cpu/dense.py",
        "if not math.isfinite(cells.sum().item()):",
        "if False:",
        _DENSE,
    ),
    Fault(
        "neighbours-without-weight-are-read",
        "pixelnet_triton/call/placing.py",
        "return low, low + (upper > 0), torch.where(upper > 0, upper, 0.5)",
        "return low, (low + 1).clamp_max(highest), upper",
        _DENSE,
    ),
    Fault(
        "small-maps-read-as-whole-ones",
        "pixelnet_triton/cpu/dense.py",
        "and f.shape[2] >= height and f.shape[3] >= width",
        "",
        _DENSE,
    ),
    Fault(
        "imagenet-deviation",
        _NORMALIZATION,
        "(0.229, 0.224, 0.225))",
        "(0.229, 0.224, 0.255))",
        _INPUTS,
    ),
    Fault(
        "imagenet-mean",
        _NORMALIZATION,
        "cls((0.485, 0.456, 0.406)",
        "cls((0.485, 0.456, 0.460)",
        _INPUTS,
    ),
    Fault(
        "caffe-mean-in-rgb",
        _NORMALIZATION,
        "cls((103.939, 116.779, 123.68)",
        "cls((123.68, 116.779, 103.939)",
        _INPUTS,
    ),
    Fault(
        "caffe-without-bgr",
        _NORMALIZATION,
        "scale=255.0, bgr=True",
        "scale=255.0, bgr=False",
        _INPUTS,
    ),
    Fault(
        "images-of-255-accepted",
        _NORMALIZATION,
        "LOWEST, HIGHEST = -0.5, 2.0",
        "LOWEST, HIGHEST = -0.5, 300.0",
        _INPUTS,
    ),
    Fault("warned-every-time", _NORMALIZATION, "        self._warned = True\n", "", _INPUTS),
    Fault(
        "default-maps",
        _VGG,
        '"conv3_3", "conv4_3", "conv5_3"),',
        '"conv3_3", "conv4_2", "conv5_3"),',
        _PAPER,
    ),
    Fault(
        "maps-before-the-relu",
        _VGG,
        "x = F.relu(x, inplace=True)",
        "x = F.relu(x) if layer.name not in self.layers else x",
        ("tests/test_models_vgg.py",),
    ),
    Fault(
        "vgg-of-xavier",
        _VGG,
        'kaiming_normal_(module.weight, nonlinearity="relu")',
        'kaiming_normal_(module.weight, nonlinearity="linear")',
        ("tests/test_models_vgg.py",),
    ),
    Fault(
        "conv6-unpadded",
        _VGG,
        "padding=layer.kernel // 2",
        "padding=layer.kernel // 3",
        ("tests/test_models_vgg.py",),
    ),
    Fault("channels-not-rescaled", _WEIGHTS, "adapted * (3 / channels)", "adapted * 1.0", _INPUTS),
    Fault(
        "identity-norm-off",
        _WEIGHTS,
        "norm.running_var.fill_(1 - norm.eps)",
        "norm.running_var.fill_(2 - norm.eps)",
        ("tests/test_models_vgg.py",),
    ),
    Fault("gaussian-of-1e-2", _HEAD, "std: float = 1e-3", "std: float = 1e-2", _PAPER),
    Fault(
        "normals-bias",
        _HEAD,
        "GaussianInit(last_std=5e-4, last_bias=0.1)",
        "GaussianInit(last_std=5e-4, last_bias=0.0)",
        ("tests/test_models_head.py",),
    ),
    Fault(
        "head-without-dropout",
        _HEAD,
        "dropout: float = 0.5,\n        init",
        "dropout: float = 0.0,\n        init",
        _PAPER,
    ),
    Fault(
        "norm-folded-without-its-mean",
        _HEAD,
        "shift = norm.bias - norm.running_mean * scale",
        "shift = norm.bias - 0 * norm.running_mean * scale",
        ("tests/test_models_head.py",),
    ),
    Fault(
        "patches-by-the-ratio",
        _BACKBONES,
        "return (stride,) * len(channels)",
        "return None",
        _INPUTS,
    ),
    Fault(
        "backbone-strides-not-given",
        "pixelnet_triton/models/pixelnet.py",
        "            head.first.strides = strides\n        elif",
        "            head.first.strides = None\n        elif",
        ("tests/test_models_pixelnet.py",),
    ),
)
