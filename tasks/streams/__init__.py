"""The task streams, one file each. `tasks.base.tasks` discovers them."""
