"""A worker's private memory, for a growing number of hospitals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fl_ppae import message_arrays, messages
from fl_ppae.benchmarks.own_process import last_number
from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.benchmarks.workload import config_for, write_images
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.simulated import write_deal
from fl_ppae.messages import ARRAYS, CONFIG
from fl_ppae.models.build import autoencoder_of
from fl_ppae.simulation.in_process import simulated_grid

_FLAT = 1.1  # the allocator may change private memory by a tenth


def measure(size: Size, folder: Path) -> Measurement:
    """Private megabytes of a worker that trained each hospital once; the image array is shared memory."""
    records = size.totals[0]
    data = write_images(folder, records, max(size.hospitals))
    found = {}
    for hospitals in size.hospitals:
        output = folder / f"memory-{hospitals}"
        config = config_for(data, output, num_server_rounds=1)
        write_deal(make_deal(resolve(config), config, hospital_names(hospitals)), output)
        found[hospitals] = last_number(__name__, json.dumps(config.to_flat()), str(hospitals))
    lines = [
        Line(f"worker with {hospitals} hospitals: private memory", value, "MB")
        for hospitals, value in found.items()
    ]
    ratio = found[max(size.hospitals)] / found[size.hospitals[0]]
    lines.append(
        Line(
            f"private memory, {max(size.hospitals)} hospitals against {size.hospitals[0]}",
            ratio,
            "",
            Aim(_FLAT),
        )
    )
    return Measurement({"private_megabytes": found, "ratio": ratio}, tuple(lines))


def _serve(flat: dict[str, Any], hospitals: int) -> float:
    """Train every hospital once, as a worker does; returns this process's private megabytes afterwards."""
    torch.set_num_threads(1)
    config = RunConfig.from_flat(flat)
    grid = simulated_grid(config, hospitals)
    arrays = message_arrays.to_arrays(autoencoder_of(config).encoder.state_dict())
    where = ConfigRecord({"run-directory": config.output_dir, "server-round": 1})
    for node in grid.get_node_ids():
        content = RecordDict({ARRAYS: arrays, CONFIG: where})
        for reply in grid.send_and_receive([Message(content, node, messages.TRAIN)]):
            if reply.has_error():
                raise UserError(reply.error.reason)
    return float(psutil.Process().memory_full_info().uss / 1e6)


if __name__ == "__main__":
    print(_serve(json.loads(sys.argv[1]), int(sys.argv[2])))
