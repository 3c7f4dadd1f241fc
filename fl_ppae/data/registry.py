"""The datasets that the project knows by name, and the one that a run uses."""

from __future__ import annotations

from fl_ppae.config import RunConfig, declared_in
from fl_ppae.data.medmnist_sets import MEDMNIST
from fl_ppae.data.spec import DatasetSpec, OfficialFile, own_spec
from fl_ppae.declared import OWN_DATA
from fl_ppae.errors import UserError

_TORCHVISION = (
    DatasetSpec(
        name="mnist",
        title="MNIST",
        channels=1,
        height=28,
        width=28,
        class_names=tuple("0123456789"),
        publisher="torchvision",
        urls=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
            "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
        ),
        files=(
            OfficialFile("MNIST/raw/train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            OfficialFile("MNIST/raw/train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            OfficialFile("MNIST/raw/t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            OfficialFile("MNIST/raw/t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        channels=3,
        height=32,
        width=32,
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        publisher="torchvision",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        files=(
            OfficialFile("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
            OfficialFile("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            OfficialFile("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            OfficialFile("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
            OfficialFile("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            OfficialFile("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
            OfficialFile("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        ),
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in (*MEDMNIST, *_TORCHVISION)}


def spec_of(config: RunConfig) -> DatasetSpec:
    """The dataset of this run, in its image size; of a user's own images, what the configuration declares.

    Raises:
        UserError: the dataset is not published in that size; shape and classes are not declared; or records
            have several labels each, and a key needs them to have one class.
    """
    if config.dataset == OWN_DATA:
        asked = declared_in(config)
        if asked.shape is None or asked.class_names is None:
            raise UserError(
                f'dataset = "{OWN_DATA}" needs image-shape and class-names, the same for all hospitals; '
                "`fl-ppae data check` prints those of a file, and `fl-ppae run` finds them itself"
            )
        return own_spec(asked.shape, asked.class_names, config.any_way_up)
    spec = DATASETS[config.dataset].sized(config.image_size)
    if spec.multi_label:
        _check_label_sets(config, spec)
    return spec


def _check_label_sets(config: RunConfig, spec: DatasetSpec) -> None:
    """Refuse what is only defined for records of one class each."""
    needs_a_class = {
        "partition": (config.partition in ("dirichlet", "pathological"), "iid or quantity-skew"),
        "label-epsilon": (config.label_epsilon > 0, "0"),
        "encoding-noise-epsilon": (config.encoding_noise_epsilon > 0, "0"),
        "adversary": (config.adversary in ("label-flip", "backdoor"), "none"),
        "worth-joining": (config.worth_joining != "none", "none"),
        "start": (config.start == "public", "random"),
    }
    values = config.to_flat()
    for key, (asked, valid) in needs_a_class.items():
        if asked:
            raise UserError(
                f"{key} = {values[key]}: needs records of one class each, but those of {spec.title} have "
                f"several labels; use {valid}"
            )
