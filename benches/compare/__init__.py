"""What `scripts/compare` is made of.

`works` says what is measured, `systems` on what; `machine` and `children` prepare the ground, `run`
measures one work on one system; `targets`, `report` and `chart` make of it what people read.
"""
