"""Every key of a run's configuration, with its type, range, unit, default and meaning.

Keys are kebab-case in `[tool.flwr.app.config]` and on the command line (`-c target-epsilon=3`),
snake_case in Python (`config.target_epsilon`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

OWN_ENCODER = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"  # package.module:function


def kebab(name: str) -> str:
    """The key of a field: `target_epsilon` is `target-epsilon`."""
    return name.replace("_", "-")


class Keys(BaseModel):
    """The keys alone; `config.RunConfig` checks that their values fit together."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=kebab, populate_by_name=True
    )

    # Data
    dataset: Literal[
        "pathmnist",
        "chestmnist",
        "dermamnist",
        "octmnist",
        "pneumoniamnist",
        "retinamnist",
        "breastmnist",
        "bloodmnist",
        "tissuemnist",
        "organamnist",
        "organcmnist",
        "organsmnist",
        "mnist",
        "cifar10",
        "custom",
    ] = Field("pathmnist", description="image data set; custom: your own images, in data-file")
    image_size: int = Field(
        0,
        ge=0,
        le=1024,
        description="height and width of images in pixels: MedMNIST's sets have 28, 64, 128 and 224; "
        "0: as small as the data set is published",
    )
    data_source: Literal["auto", "medmnist", "torchvision", "file", "stand-in"] = Field(
        "auto",
        description="where the images come from; auto: the official file, or a download, "
        "or else the stand-in, with a warning",
    )
    data_root: str = Field(
        "",
        description="directory of the official files; empty: ~/.medmnist (MedMNIST) or "
        "~/.fl_ppae/torchvision (MNIST, CIFAR-10)",
    )
    data_file: str = Field(
        "",
        description="with data-source = file, the .npz to read; with dataset = custom, your own images: an "
        ".npz, a folder, or a manifest (.csv or .parquet)",
    )
    image_shape: str = Field(
        "",
        description='with dataset = custom, channels, height and width of every image, such as "3,28,28"; '
        "empty: fl-ppae run writes here what the file has",
    )
    class_names: str = Field(
        "",
        description="with dataset = custom, all classes in the order of their labels, with commas between "
        "them; empty: fl-ppae run writes here those of the file",
    )
    any_way_up: bool = Field(
        False,
        description="with dataset = custom: a mirrored or turned image is as likely as the image itself",
    )
    intensity_range: str = Field(
        "",
        description='with dataset = custom, the pixel values that become black and white, such as "0,4095"; '
        "public constants; empty: those of the type (8 or 16 bits), or a DICOM image's own window",
    )
    resize: int = Field(
        0,
        ge=0,
        le=4096,
        description="with dataset = custom, the side in pixels to which images are scaled, in proportion and "
        "on black; 0: all images must have one size",
    )
    max_unreadable: int = Field(
        0,
        ge=0,
        description="with dataset = custom, how many files may be left out because they can't be read",
    )
    partition: Literal[
        "iid", "dirichlet", "pathological", "quantity-skew", "acquisition-shift", "natural"
    ] = Field(
        "iid",
        description="how the train split is divided among the hospitals; natural: as the column hospital of "
        "a manifest says",
    )
    dirichlet_alpha: float = Field(
        0.5,
        gt=0,
        le=1e4,
        description="concentration for partition = dirichlet; smaller is more skewed",
    )
    classes_per_hospital: int = Field(
        3, ge=1, le=100, description="classes per hospital under partition = pathological"
    )
    min_records: int = Field(
        64, ge=1, description="fewest train records a hospital may have; fewer is an error"
    )
    public_records: int = Field(
        -1,
        ge=-1,
        le=10_000_000,
        description="labelled images that the server has, equally many of each class, from the validation "
        "split; -1: all of it",
    )

    # Training
    num_server_rounds: int = Field(10, ge=1, le=10_000, description="rounds of local training")
    local_epochs: int = Field(
        1, ge=1, le=1_000, description="expected passes over a hospital's records per round"
    )
    local_steps: int = Field(
        0,
        ge=0,
        le=1,
        description="0: a round is local-epochs passes with the hospital's own optimiser; 1: a round is one "
        "step: hospitals send the clipped sum of one Poisson batch, and the server's Adam steps",
    )
    batch_size: int = Field(
        256,
        ge=1,
        le=65_536,
        description="expected batch size: sample rate = batch-size / records, rounded up slightly, at most 1",
    )
    sample_rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="0: each hospital's own, from batch-size; otherwise one public rate for all hospitals",
    )
    learning_rate: float = Field(4e-3, gt=0, le=10, description="Adam's learning rate in every round")
    objective: Literal["reconstruction", "task"] = Field(
        "reconstruction", description="what the encoder learns to predict: the image or the label"
    )
    autoencoder: Literal["fc", "fc-deep", "conv", "conv-image", "residual", "scatter"] = Field(
        "conv", description="architecture of the encoder and decoder"
    )
    encoder: str = Field(
        "",
        pattern=f"^({OWN_ENCODER})?$",
        description="your own encoder in place of autoencoder, as package.module:build; empty: autoencoder",
    )
    encoding_size: int = Field(
        0,
        ge=0,
        le=65_536,
        description="numbers in an encoding; 0: the architecture's default (fc, fc-deep: 784; "
        "conv: 16 channels; conv-image: the image's shape; residual: 16; scatter: 80 a channel)",
    )
    encoding_bits: int = Field(
        0,
        ge=0,
        le=8,
        description="bits for each number of an encoding, rounded to a grid on [-1, 1], beyond which it is "
        "clipped; 0: float32",
    )
    start: str = Field(
        "random",
        min_length=1,
        description="what all hospitals start from: random weights; public: those that the server trains on "
        "its public records; or the path of a .safetensors file",
    )
    trains: Literal["all", "last", "head"] = Field(
        "all",
        description="what is trained, clipped, noised and sent; all; last: the encoder's last layer, and the "
        "decoder or head; head: the shared task head alone",
    )

    augmentations: int = Field(
        0,
        ge=0,
        le=16,
        description="0: a record is trained on as it is; otherwise its gradient is the mean over so many "
        "shifted and brightened copies (mirrored and turned, where a set has no right way up)",
    )

    views: Literal[1, 8] = Field(
        1,
        description="8: an encoding is the mean over an image's eight orientations, for data sets whose "
        "images have no right way up; 1: the image as it is",
    )

    # Privacy
    dp_scope: Literal["none", "encoder", "frozen-decoder", "autoencoder"] = Field(
        "autoencoder", description="which gradients are clipped and noised"
    )
    target_epsilon: float = Field(
        8.0, gt=0, le=1e3, description="each hospital's budget for encoder updates over all rounds"
    )
    target_delta: float = Field(
        1e-5, ge=1e-12, lt=1, description="must be below 1 / records of every hospital"
    )
    noise_multiplier: float = Field(
        0.0,
        ge=0,
        le=1e4,
        description="0: calibrated for each hospital to target-epsilon; otherwise used by all, >= 0.2",
    )
    noise: Literal["own", "joint"] = Field(
        "own",
        description="own: each hospital adds all the noise that its epsilon takes; joint: the noise of "
        "honest-hospitals together makes up one epsilon's worth",
    )
    honest_hospitals: int = Field(
        0,
        ge=0,
        le=1_000,
        description="hospitals assumed honest among the min-hospitals of a round; 0: all of them, which "
        "noise = joint does not take for granted",
    )
    max_grad_norm: float = Field(
        0.001,
        ge=1e-6,
        le=1e6,
        description="L2 norm to which a record's gradient is clipped; a mean over pixels has small gradients",
    )
    encoding_noise_epsilon: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="epsilon of the Gaussian mechanism on encodings, replace-one, at target-delta; "
        "0: encodings are shared plain",
    )
    projection_size: int = Field(
        16,
        ge=1,
        le=65_536,
        description="size to which public data project an encoding before noise is added; "
        "only used with encoding-noise-epsilon",
    )
    label_epsilon: float = Field(
        0.0,
        ge=0,
        le=100,
        description="epsilon of randomised response on labels, at delta 0; 0: labels are shared in the clear",
    )
    diagnostics: bool = Field(
        False, description="hospitals also report losses and clipping; the run then has no guarantee"
    )

    # Sharing, server
    share: Literal["updates", "encodings", "updates+encodings"] = Field(
        "updates", description="what leaves a hospital"
    )
    protection: Literal["none", "secagg"] = Field(
        "none",
        description="how updates travel; secagg: masked, so that the server sees only their sum",
    )
    min_hospitals: int = Field(
        0,
        ge=0,
        le=1_000,
        description="fewest hospitals whose updates a round is made of; with fewer it is not combined. "
        "0: one, or all with protection = secagg",
    )
    reply_timeout: float = Field(
        3600.0,
        gt=0,
        le=43_200,
        description="seconds that the server waits for hospitals' replies; a hospital that is later counts "
        "as dropped out (Flower keeps a message for 12 hours)",
    )
    classifier: Literal["lr", "mlp", "resnet18", "head"] = Field(
        "lr",
        description="the classifier of encodings; lr, mlp (for small codes), resnet18: the server trains it; "
        "head: the task head that hospitals train together in one-step rounds, with no public image",
    )
    evaluate_every: int = Field(
        5,
        ge=0,
        description="rounds between evaluations; the last is always evaluated; 0: only the last",
    )
    worth_joining: Literal["none", "quick"] = Field(
        "none",
        description="quick: a simulation also trains what hospitals and the server reach without each other, "
        "and says what joining gains; none: it does not",
    )
    aggregation: Literal["average", "median", "trimmed-mean", "krum"] = Field(
        "average",
        description="how updates are combined: mean weighted by records, or a rule robust to a few outliers",
    )
    adversary: Literal["none", "label-flip", "backdoor", "sign-flip", "scaled", "random", "free-rider"] = (
        Field("none", description="behaviour of the hospitals in adversary-hospitals")
    )
    adversary_hospitals: str = Field("", description='hospital numbers from 0, comma-separated: "0,3"')
    record_messages: bool = Field(False, description="keep every received update in received/ for audits")

    # The run
    checkpoint_every: int = Field(
        -1,
        ge=-1,
        le=100,
        description="rounds between checkpoints, from which an interrupted run goes on; -1: one after each "
        "round that ends 30 s or more after the last; 0: none",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="precision of layers in training; auto: bfloat16 where it is the faster. Clipped "
        "sums and noise are always float64, weights float32",
    )
    threads_per_hospital: int = Field(1, ge=1, le=256, description="CPU threads per training hospital")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where layers run; auto: a CUDA device if there is one"
    )
    hospitals_per_gpu: int = Field(
        4, ge=1, le=256, description="hospitals that train at once on a CUDA device in a simulation"
    )
    seed: int = Field(
        42,
        ge=-1,
        lt=2**31,
        description="seed of initialisation, partitions and, in a simulation, noise and sampling; "
        "-1: draw noise and sampling from the operating system's entropy",
    )
    tensorboard: bool = Field(
        False, description="also write rounds and results as TensorBoard event files in tensorboard/"
    )
    mlflow_tracking_uri: str = Field(
        "",
        description="also log them to this MLflow server or sqlite:///FILE, as experiment fl-ppae; "
        "empty: off",
    )
    resume: str = Field(
        "",
        description="the interrupted run to go on with, by folder or name; other keys must be as they were",
    )
    output_dir: str = Field(
        "", description="run directory; empty: ~/.fl_ppae/runs/<simulation>-<UTC time>-<run id>"
    )
