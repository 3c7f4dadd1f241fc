"""`fl-ppae make-start`: train the residual network on a public data set, as a file to start from."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fl_ppae.commands.output import show
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError, printable
from fl_ppae.paths import check_can_hold_files, path_of
from fl_ppae.steps import step

if TYPE_CHECKING:
    from torch import Tensor

    from fl_ppae.data.cache import Dataset
    from fl_ppae.data.records import Positions, Records

_TOLD_EVERY = 10


@dataclass(frozen=True, eq=False)
class Recoloured:
    """`records` with `channels` channels: grey repeated, or the mean of the colours."""

    records: Records
    channels: int

    def __len__(self) -> int:
        return len(self.records)

    def images(self, positions: Positions = slice(None)) -> Tensor:
        """(N, channels, H, W) float32 in [0, 1]."""
        return self.records.images(positions).mean(1, keepdim=True).expand(-1, self.channels, -1, -1)

    def labels(self, positions: Positions = slice(None)) -> Tensor:
        """(N,) int64."""
        return self.records.labels(positions)


def command(arguments: argparse.Namespace) -> int:
    """Train on the train and validation splits, test on the test split, and write the file."""
    from fl_ppae.data.sources import resolve

    values: dict[str, Any] = {
        "dataset": arguments.dataset,
        "autoencoder": "residual",
        "objective": "task",
        "encoding-size": arguments.encoding_size,
        "seed": arguments.seed,
    }
    for key in ("data-source", "data-root", "data-file"):
        if text := getattr(arguments, key.replace("-", "_")):
            values[key] = text
    config = RunConfig.from_flat(values)
    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: must be at least 1")
    path = path_of(arguments.output, "--output")
    check_can_hold_files(path.parent, "--output")
    document = _made(config, resolve(config), path, arguments.channels, arguments.steps)
    text = (
        f"{document['trained_on']}: {document['records']:,} images, {document['steps']:,} steps; accuracy on "
        f"its test split {document['accuracy']:.3f}. Use it with -c autoencoder=residual "
        f"-c encoding-size={document['encoding_size']} -c start={printable(str(path))}"
    )
    show(document, [Text(text)], as_json=arguments.json)
    return 0


def _made(config: RunConfig, dataset: Dataset, path: Path, channels: int, steps: int) -> dict[str, Any]:
    import numpy as np

    from fl_ppae.data.records import HospitalRecords, JoinedRecords
    from fl_ppae.hardware import device_of, limited_threads, server_threads
    from fl_ppae.models.autoencoders import build_autoencoder, build_head, encoding_shape
    from fl_ppae.models.objectives import OBJECTIVES, LocalModel
    from fl_ppae.models.plain_training import PlainTraining, class_probabilities, train_plainly
    from fl_ppae.server.start_file import write_start

    spec = dataset.spec
    image = (channels or spec.channels, *spec.image_shape[1:])

    def held(split: Any) -> Records:
        records = HospitalRecords(split, np.arange(len(split)))
        return records if image[0] == spec.channels else Recoloured(records, image[0])

    autoencoder = build_autoencoder("residual", config.encoding_size, image, config.seed)
    code = encoding_shape("residual", config.encoding_size, image)
    head = build_head(code, spec.num_classes, config.seed, scaled=autoencoder.scaled)
    records = JoinedRecords((held(dataset.train), held(dataset.val)))
    training = PlainTraining(steps, spec.any_way_up)
    device = device_of(config.device)

    def told(done: int) -> None:
        if done % _TOLD_EVERY == 0:
            step(f"training on {spec.title}, step {done}/{steps}")

    with limited_threads(server_threads()):
        model = LocalModel(autoencoder.encoder, head)
        loss = OBJECTIVES["task"].loss
        trained = train_plainly(model, records, training, config.seed, loss, device, told)
        likely = class_probabilities(trained, held(dataset.test), any_way_up=False, device=device)
    write_start(path, trained.state_dict())
    return {
        "file": str(path),
        "trained_on": dataset.source.label,
        "records": len(records),
        "steps": steps,
        "image_channels": image[0],
        "encoding_size": code[0],
        "accuracy": float(np.mean(likely.argmax(1) == np.ravel(dataset.test.labels))),
    }
