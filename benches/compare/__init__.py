"""The parts of `scripts/compare`.

`works` lists the works, `systems` the systems; `machine` and `children` prepare programs and processes;
`run` measures one work on one system; `targets`, `report` and `chart` present the results.
"""
