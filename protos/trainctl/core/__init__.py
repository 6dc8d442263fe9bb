"""What every other package may lean on: errors, ids, units, the clock port and the records of a job's life."""
