"""The columns of the studies' tables: their meaning, and their role in means over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["key", "metric", ""]


@dataclass(frozen=True)
class Column:
    """One column of `cells.csv`.

    Attributes:
        role: a `key` identifies the configuration of a row; a `metric` is averaged over its seeds.
    """

    name: str
    meaning: str
    role: Role = ""


_DATA = (
    Column("dataset", "key of the data set", "key"),
    Column("source", "origin of its images", "key"),
    Column("stand_in", "`true` for drawn images", "key"),
)
_END = (
    Column("seconds", "of the whole cell", "metric"),
    Column("error", "what went wrong, in one line"),
    Column("hits", "which test images the classifier recognised; see `studies.hits`"),
)

PAPER = (
    Column("cell", "the cell's name: dataset/encoding/privacy/scope/h<hospitals>/s<seed>"),
    *_DATA,
    Column("encoding", "`pixels` (no autoencoder), `pca`, `scatternet`, `random` or `trained`", "key"),
    Column("autoencoder", "of a random or trained encoder: `fc`, `fc-deep`, `conv`, `conv-image`", "key"),
    Column("privacy", "target epsilon of the encoder updates, such as `8`; `none` without DP", "key"),
    Column("scope", "`none`, `encoder` (the paper's) or `autoencoder`", "key"),
    Column("hospitals", "1 is the paper's central training; untrained encodings have 1", "key"),
    Column("seed", "of initial weights, noise and sampling"),
    Column("classifier", "`lr` or `resnet18`, on the pooled encodings of all train parts", "key"),
    Column("accuracy", "on the test split, 0 to 1", "metric"),
    Column("auc", "on the test split, mean over one-vs-rest curves", "metric"),
    Column("cosine", "of test images and their encodings; see `leakage.similarity`", "metric"),
    Column("cosine_centred", "the same without the mean image and the mean encoding", "metric"),
    Column("cosine_mismatched", "the same for pairs that do not belong together", "metric"),
    Column("reconstruction_loss", "MSE per pixel of a decoder fitted to the server's split", "metric"),
    Column(
        "inversion_ssim",
        "mean SSIM of the best attacker on test images; it trains on the server's split",
        "metric",
    ),
    Column("inversion_attacker", "name of the best attacker"),
    Column("ssim_mean_image", "floor: of an attacker who sees nothing", "metric"),
    Column("ssim_class_mean", "floor: of an attacker who sees only the label", "metric"),
    Column("epsilon", "largest over hospitals, of the encoder updates alone, from the ledger", "metric"),
    Column("delta", "of `epsilon`; both are empty without DP"),
    Column(
        "epsilon_status", "`formal`, `nominal` (scope encoder: never a guarantee), `none` or `refuted`", "key"
    ),
    Column("train_records", "images in the train split"),
    Column("test_records", "images in the test split"),
    *_END,
)
PARTITIONS = (
    Column("cell", "the cell's name: dataset/partition/setting/noise/h<hospitals>/s<seed>"),
    *_DATA,
    Column("partition", "as in the grid: `iid`, `dirichlet-10`, ...", "key"),
    Column("setting", "`federated`, `central` or `alone`", "key"),
    Column("noise", "`calibrated` per hospital, or one noise multiplier `shared` by all", "key"),
    Column("hospitals", "number of hospitals", "key"),
    Column("seed", "of the split, initial weights, noise and sampling"),
    Column("accuracy", "on all test images, 0 to 1", "metric"),
    Column("accuracy_hospitals", "mean over hospitals, each on its own mix of test images", "metric"),
    Column("accuracy_worst", "that of the worst hospital; its mean is over each seed's own worst", "metric"),
    Column("epsilon_min", "smallest over hospitals, of the encoder updates alone", "metric"),
    Column("epsilon_max", "largest over hospitals, of the encoder updates alone", "metric"),
    Column("delta", "of both epsilons"),
    Column("epsilon_status", "`formal`, `nominal`, `none` or `refuted`", "key"),
    Column("hellinger", "mean distance of a hospital's label mix to the federation's, 0 to 1", "metric"),
    Column("records_min", "records of the smallest hospital", "metric"),
    Column("records_max", "records of the largest hospital", "metric"),
    *_END,
)
_INVERTERS = {
    "linear": "of a linear map",
    "convolutional_l1": "of a network trained for L1",
    "convolutional_mse": "of a network trained for MSE",
    "convolutional_ssim": "of a network trained for SSIM",
    "prior_corrected": "of latents of a variational autoencoder, corrected by a network",
    "prior_searched": "of a search in its latents through the known encoder",
    "gradient": "of gradient descent through the known encoder, from there",
}
FRONTIER = (
    Column("cell", "the cell's name: dataset/autoencoder/code/s<seed>"),
    *_DATA,
    Column("public_records", "labelled images of the server", "key"),
    Column("hospitals", "number of hospitals", "key"),
    Column("classifier", "`head`, trained together; `lr` or `mlp`, on the uploads of all train parts", "key"),
    Column("objective", "of the encoder", "key"),
    Column("autoencoder", "`conv`, the paper's, or `residual`", "key"),
    Column("code_numbers", "numbers in an encoding", "key"),
    Column("code_bits", "bits of an encoding, all numbers together", "key"),
    Column("encoder_formal", "`true` if the epsilon of what hospitals train is a guarantee", "key"),
    Column("run_formal", "`true` if everything that leaves a hospital has a guarantee", "key"),
    Column("seed", "of the split, initial weights, noise and sampling"),
    Column("encoder_epsilon", "largest over hospitals, of the updates alone, at delta 1e-5", "metric"),
    Column("accuracy", "on the test split, 0 to 1", "metric"),
    Column("gain_over_alone", "over the better of a hospital and the server alone; `--scale full`", "metric"),
    Column("inversion_ssim", "mean SSIM of the attacker that is best by SSIM on its own pairs", "metric"),
    Column("ssim_attacker", "its name"),
    Column("inversion_psnr", "mean PSNR, dB, of the one that is best by PSNR", "metric"),
    Column("psnr_attacker", "its name"),
    *(Column(f"ssim_{name}", f"mean SSIM {meaning}", "metric") for name, meaning in _INVERTERS.items()),
    *(Column(f"psnr_{name}", f"mean PSNR, dB, {meaning}", "metric") for name, meaning in _INVERTERS.items()),
    Column("ssim_mean_image", "floor: of an attacker who sees nothing", "metric"),
    Column("ssim_class_mean", "floor: of an attacker who sees only the label", "metric"),
    Column("psnr_mean_image", "the same, dB", "metric"),
    Column("psnr_class_mean", "the same, dB", "metric"),
    Column("retrieval_known_top1", "own image first of all test images attacked, by the encoder", "metric"),
    Column("retrieval_augmented_top1", "the same with another capture of each image", "metric"),
    Column("linkage_auc", "two captures of one image told from two images", "metric"),
    Column("seconds", "of the whole cell", "metric"),
    Column("error", "what went wrong, in one line"),
)

VALUE = (
    Column("cell", "the cell's name: dataset/h<hospitals>/public<images>/eps<e>/noise/partition/s<seed>"),
    *_DATA,
    Column("hospitals", "number of hospitals", "key"),
    Column("public_records", "labelled images of the server; -1: the whole validation split", "key"),
    Column("privacy", "epsilon of everything that leaves a hospital; `none` without noise", "key"),
    Column("noise", "`joint`, with 3 of 5, 16 of 20 or 80 of 100 honest, or each hospital's `own`", "key"),
    Column("partition", "`iid` or `dirichlet-0.5`", "key"),
    Column("epsilon_status", "`formal`, or `none` without noise", "key"),
    Column("seed", "of the split, the public images, initial weights and noise"),
    Column("accuracy", "of the common head on the test split, 0 to 1", "metric"),
    Column("accuracy_personal", "of the median hospital with the common head and its own model", "metric"),
    Column("accuracy_alone", "of the median hospital, without joining", "metric"),
    Column("accuracy_server", "of the server, from its public images", "metric"),
    Column("gain", "`accuracy_personal` minus the better of alone and server", "metric"),
    Column("gain_common", "the same of the common head alone", "metric"),
    Column("weight_common", "of the common head in the hospital's mixture", "metric"),
    Column("weight_own", "of its own model", "metric"),
    Column("noise_std", "of the noise in each sum of all hospitals", "metric"),
    Column("records", "of the median hospital", "metric"),
    *_END,
    Column("hits_better", "the same of the better of alone and server; `hits` are the personal model's"),
)

_ALL = (*PAPER, *PARTITIONS, *FRONTIER, *VALUE)
KEYS = frozenset(column.name for column in _ALL if column.role == "key")
METRICS = frozenset(column.name for column in _ALL if column.role == "metric")
TITLES = {
    "accuracy_personal": "personal",
    "accuracy_alone": "alone",
    "accuracy_server": "server alone",
    "gain_common": "gain of the common head",
    "auc": "AUC",
    "epsilon": "epsilon (encoder updates)",
    "inversion_ssim": "inversion SSIM",
    "accuracy_hospitals": "own mix: mean",
    "accuracy_worst": "own mix: worst",
}


def names(columns: tuple[Column, ...]) -> list[str]:
    """Their names, in file order."""
    return [column.name for column in columns]


def titled(name: str) -> str:
    """A column's heading in a table for readers."""
    return TITLES.get(name, name.replace("_", " "))
