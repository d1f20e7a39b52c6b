"""The machine: disk, cache folder, versions, memory."""
