"""The datasets, their files and checks; hospital partitions; the built-in stand-in.

`resolve(config)` finds the data once a run; `open_cache(dataset.path)` maps it in every other process;
`partition` and `share_out` deal it out; `HospitalRecords` is what one hospital sees of it.
"""

from fl_ppae.data.acquisition import NO_SHIFT, AcquisitionShift, hospital_shift
from fl_ppae.data.cache import Dataset, DataSource, Split, open_cache
from fl_ppae.data.official import Availability, describe_available
from fl_ppae.data.partition import partition, share_out
from fl_ppae.data.records import HospitalRecords, to_float
from fl_ppae.data.registry import DATASETS, DatasetSpec
from fl_ppae.data.sources import resolve

__all__ = [
    "DATASETS",
    "NO_SHIFT",
    "AcquisitionShift",
    "Availability",
    "DataSource",
    "Dataset",
    "DatasetSpec",
    "HospitalRecords",
    "Split",
    "describe_available",
    "hospital_shift",
    "open_cache",
    "partition",
    "resolve",
    "share_out",
    "to_float",
]
