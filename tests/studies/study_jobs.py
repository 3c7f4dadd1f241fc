"""Work for the workers of a test, in a module of its own because each worker imports it."""

import os
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    name: str


def work(job: Job) -> list[dict[str, Any]]:
    if job.name == "fails":
        raise ValueError("a reason\nin two lines")
    if job.name == "dies":
        os._exit(9)
    print("said", job.name)
    return [{"cell": job.name, "threads": os.environ["OMP_NUM_THREADS"]}]


def slow(job: Job) -> list[dict[str, Any]]:
    time.sleep(0 if job.name == "a" else 60)
    return [{"cell": job.name}]
