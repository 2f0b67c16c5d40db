"""The studies, one file each with a `STUDY`. `sweeps.study` discovers them."""
