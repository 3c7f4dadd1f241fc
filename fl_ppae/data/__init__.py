"""The datasets, their files and checks; hospital partitions; the built-in stand-in.

`sources.resolve(config)` finds the data once a run; `cache.open_cache(dataset.path)` maps it in every other
process; `deal.make_deal` deals it to the hospitals; `records.HospitalRecords` is one hospital's part.
"""
