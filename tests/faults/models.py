"""Faults of the network: normalisation, backbone, head."""

from .fault import Fault

_NORMALIZATION = "pixelnet_triton/models/normalization.py"
_VGG = "pixelnet_triton/models/vgg.py"
_WEIGHTS = "pixelnet_triton/models/vgg_weights.py"
_HEAD = "pixelnet_triton/models/head.py"
_BACKBONES = "pixelnet_triton/models/backbones.py"
_INPUTS = ("tests/test_models_inputs.py",)
_PAPER = ("tests/test_training_paper.py",)

FAULTS = (
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
