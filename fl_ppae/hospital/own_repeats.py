"""What a deployed hospital tells its own operator about records that stand in its file several times."""

from __future__ import annotations

from collections.abc import Sequence
from logging import WARNING

from flwr.common.logger import log

from fl_ppae.config import RunConfig
from fl_ppae.data.identities import identities
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.repeats import repeated_records
from fl_ppae.hospital.site import Hospital
from fl_ppae.privacy.events import Event
from fl_ppae.privacy.plan import Plan, plan_hospital
from fl_ppae.privacy.repeated_records import in_words, planned_costs


def log_repeats(hospital: Hospital, config: RunConfig, spent: Sequence[Event]) -> None:
    """Write to this node's own log how many images repeat, and the epsilon of a group if the run goes as
    planned on top of `spent`. It depends on the records, so nothing of it may leave the hospital.
    """
    assert isinstance(hospital.train, HospitalRecords)  # only simulated adversaries alter theirs
    name = hospital.identity.name
    numbers = identities({"train": hospital.train.split.images, "test": hospital.test.split.images})
    test = {name: numbers["test"]} if config.shares_encodings else None
    repeated = repeated_records({name: numbers["train"]}, test)
    if repeated:
        plan = Plan((plan_hospital(name, len(hospital.train), config),))
        for line in in_words(planned_costs(repeated, plan, config, {name: spent})):
            log(WARNING, "%s", line)
