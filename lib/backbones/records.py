"""One record a backbone: all that tells one network of `keras.applications` from another.

To add a backbone, add its record; every list and table by a network's name is derived from these.
Nothing here imports Keras. What is not in a record is the same for all: a network is built by the
function of `keras.applications` that bears its name.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

# What networks were pre-trained with, as their `preprocess_input` makes it of pixels 0 to 255.
UNIT_RANGE = "RGB in [-1, 1]"
CENTRED = "centred BGR"  # less the mean of ImageNet, -124 to 152
NORMALISED = "normalised RGB"  # less ImageNet's mean, over its deviation, -2.1 to 2.6
PIXELS = "RGB from 0 to 255"  # the network rescales them itself


@dataclass(frozen=True)
class Thin:
    """How a thin twin is made and pre-trained.

    Attributes:
        fraction: share of the channels that it keeps: 0.05 to 0.4 million weights in all.
        rate: peak rate of SGD. BatchNorm makes a network indifferent to the scale of its kernels,
            so it bears, and needs, a high one.
        scaling: `input_scaling` of what it is pre-trained with.
    """

    fraction: float
    rate: float = 0.3
    scaling: str = "unit"


@dataclass(frozen=True)
class Backbone:
    """What is known of a network before Keras builds it.

    Attributes:
        name: of its function in `keras.applications`.
        native: what it was pre-trained with.
        alpha: whether it has a width multiplier.
        files: names looked for in a folder of weights, in this order: ours, then that of Keras'
            own download in ~/.keras/models. ``{alpha}`` is 1.0, 0.25, ..., ``{keras_alpha}`` 1_0,
            2_5. None: the network's name in lower case and ``_notop.weights.h5``. Empty: no file
            fits, because Keras builds its ImageNet version with a layer more.
        least_size: the smallest image that it takes, in pixels.
        imagenet_size: the image for which Keras builds it with ImageNet weights, in pixels.
        thin: how its thin twin is made; None: it has none.
    """

    name: str
    native: str
    alpha: bool = False
    files: tuple[str, ...] | None = None
    least_size: int = 32
    imagenet_size: int = 224
    thin: Thin | None = None

    @property
    def weight_files(self) -> tuple[str, ...]:
        """`files`, or what stands for None."""
        own = (f"{self.name.lower()}_notop.weights.h5",)
        return own if self.files is None else self.files


PAPER = (  # in the order of the paper's Table I
    Backbone(
        "VGG16",
        CENTRED,
        files=(
            "vgg16_notop.weights.h5",
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
        thin=Thin(3 / 32, rate=0.03),
    ),
    Backbone(
        "MobileNet",
        UNIT_RANGE,
        alpha=True,
        files=(
            "mobilenet_{alpha}_224_notop.weights.h5",
            "mobilenet_{keras_alpha}_224_tf_no_top.h5",
        ),
        thin=Thin(7 / 32),
    ),
    Backbone(
        "MobileNetV2",
        UNIT_RANGE,
        alpha=True,
        files=(
            "mobilenet_v2_{alpha}_224_notop.weights.h5",
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
        ),
        thin=Thin(1 / 4),
    ),
    Backbone(
        "MobileNetV3Small",
        PIXELS,
        alpha=True,
        files=(
            "mobilenet_v3_small_{alpha}_224_notop.weights.h5",
            "weights_mobilenet_v3_small_224_{alpha}_float_no_top_v2.h5",
        ),
        # It rescales inside the model, and the paper's [0, 1] nearly blanks the image for the twin
        # too.
        thin=Thin(3 / 8, scaling="native"),
    ),
    Backbone(
        "ResNet50V2",
        UNIT_RANGE,
        files=(
            "resnet50v2_notop.weights.h5",
            "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
        thin=Thin(1 / 12),
    ),
)
OTHERS = (
    *(Backbone(f"ConvNeXt{x}", PIXELS) for x in ("Tiny", "Small", "Base", "Large", "XLarge")),
    *(Backbone(f"DenseNet{n}", NORMALISED) for n in (121, 169, 201)),
    *(
        Backbone(f"EfficientNetB{n}", PIXELS, files=(), imagenet_size=size)
        for n, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    ),
    *(
        Backbone(f"EfficientNetV2{x}", PIXELS, imagenet_size=size)
        for x, size in zip(
            ("B0", "B1", "B2", "B3", "S", "M", "L"),
            (224, 240, 260, 300, 384, 480, 480),
            strict=True,
        )
    ),
    Backbone("InceptionResNetV2", UNIT_RANGE, least_size=75, imagenet_size=299),
    Backbone("InceptionV3", UNIT_RANGE, least_size=75, imagenet_size=299),
    Backbone("MobileNetV3Large", PIXELS, alpha=True),
    Backbone("NASNetLarge", UNIT_RANGE, imagenet_size=331),
    Backbone("NASNetMobile", UNIT_RANGE),
    *(Backbone(f"ResNet{n}", CENTRED) for n in (50, 101, 152)),
    *(Backbone(f"ResNet{n}V2", UNIT_RANGE) for n in (101, 152)),
    Backbone("VGG19", CENTRED),
    Backbone("Xception", UNIT_RANGE, least_size=71, imagenet_size=299),
)

RECORDS = {record.name: record for record in (*PAPER, *OTHERS)}
BACKBONE_NAMES = tuple(record.name for record in PAPER)
ALPHA_BACKBONES = tuple(name for name, record in RECORDS.items() if record.alpha)
THIN_BACKBONES = tuple(name for name, record in RECORDS.items() if record.thin)

MODEL_FILE = ".keras"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")

# Kinds of layer as tables name them, by the layer's class; another is `OTHER_KIND`.
NORM, OTHER_KIND = "BatchNorm", "other"
LAYER_KINDS = {
    "BatchNormalization": NORM,
    "DepthwiseConv2D": "depthwise convolution",
    "Conv2D": "convolution",
    "Dense": "dense",
}


def is_model_file(source: str) -> bool:
    """Whether an entry of `backbones` is the path of a ``.keras`` file, not a network's name."""
    return source.endswith(MODEL_FILE)


def backbone_name(source: str) -> str:
    """The name under which rows and files have an entry of `backbones`: a path's is its stem."""
    return PurePath(source).stem if is_model_file(source) else source


def is_own_name(name: str) -> bool:
    """Whether a model file may give its rows this name: fit for a file, and no network's."""
    return bool(_FILE_NAME.fullmatch(name)) and name not in RECORDS
