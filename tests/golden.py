"""Golden values: keys and their defaults, the files and columns of a run, the sizes of the real data."""

from typing import Any

KEY_DEFAULTS: dict[str, Any] = {
    "dataset": "pathmnist",
    "data-source": "auto",
    "data-root": "",
    "data-file": "",
    "partition": "iid",
    "dirichlet-alpha": 0.5,
    "classes-per-hospital": 3,
    "min-records": 64,
    "public-records": -1,
    "num-server-rounds": 10,
    "local-epochs": 1,
    "local-steps": 0,
    "batch-size": 256,
    "sample-rate": 0.0,
    "learning-rate": 0.004,
    "objective": "reconstruction",
    "autoencoder": "conv",
    "encoding-size": 0,
    "dp-scope": "autoencoder",
    "target-epsilon": 8.0,
    "target-delta": 1e-05,
    "noise-multiplier": 0.0,
    "noise": "own",
    "honest-hospitals": 0,
    "max-grad-norm": 0.001,
    "encoding-noise-epsilon": 0.0,
    "projection-size": 16,
    "label-epsilon": 0.0,
    "diagnostics": False,
    "share": "updates",
    "protection": "none",
    "min-hospitals": 0,
    "classifier": "lr",
    "evaluate-every": 5,
    "worth-joining": "none",
    "aggregation": "average",
    "adversary": "none",
    "adversary-hospitals": "",
    "record-messages": False,
    "checkpoint-every": 0,
    "precision": "auto",
    "threads-per-hospital": 1,
    "device": "auto",
    "hospitals-per-gpu": 4,
    "seed": 42,
    "tensorboard": False,
    "mlflow-tracking-uri": "",
    "output-dir": "",
}
SIMULATION_CHANGES: dict[str, dict[str, Any]] = {
    "pathmnist_iid": {"worth-joining": "quick"},
    "pathmnist_dirichlet": {"partition": "dirichlet", "worth-joining": "quick"},
    "pathmnist_encodings": {"share": "encodings", "worth-joining": "quick"},
    "bloodmnist_iid": {
        "dataset": "bloodmnist",
        "batch-size": 1024,
        "num-server-rounds": 20,
        "evaluate-every": 10,
        "worth-joining": "quick",
    },
    "bloodmnist_dirichlet": {
        "dataset": "bloodmnist",
        "partition": "dirichlet",
        "batch-size": 1024,
        "num-server-rounds": 20,
        "evaluate-every": 10,
        "worth-joining": "quick",
    },
    "mnist_iid": {"dataset": "mnist", "worth-joining": "quick"},
    "cifar10_iid": {"dataset": "cifar10", "worth-joining": "quick"},
}
"""The keys in which each simulation differs from the defaults."""

RUN_FILES = {
    "config.json",
    "rounds.csv",
    "hospitals.csv",
    "timing.csv",
    "ledger.json",
    "summary.json",
    "privacy_card.md",
    "report.html",
    "classifier.safetensors",
}
"""Every run leaves these; one that shares updates leaves `encoder.safetensors` too."""

ROUND_COLUMNS = (
    "round",
    "hospitals_trained",
    "hospitals_declined",
    "hospitals_excluded",
    "epsilon_max",
    "epsilon_basis",
    "accuracy",
    "auc",
    "reconstruction_loss",
    "cosine",
    "cosine_centred",
    "cosine_mismatched",
    "retrieval_top1",
)
HOSPITAL_COLUMNS = (
    "round",
    "hospital",
    "records",
    "noise_multiplier",
    "sample_rate",
    "steps",
    "epsilon",
    "epsilon_basis",
    "epsilon_alone",
    "status",
    "reason",
    "loss",
    "clipped_fraction",
    "signal_to_noise",
)

POISONS_RECORDS = ("label-flip", "backdoor")
POISONS_UPDATES = ("sign-flip", "scaled", "random", "free-rider")
"""The behaviours of an adversary."""

REAL_COUNTS = {
    "bloodmnist.npz": (11_959, 1_712, 3_421),
    "pathmnist_first1000.npz": (700, 100, 200),
    "mnist.npz": (54_000, 6_000, 10_000),
    "cifar10_lossless_part.npz": (4_653, 517, 1_017),
}
"""Records for train, validation and test in the real data files."""
