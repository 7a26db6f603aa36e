"""Workloads, plans, simulations and ledgers as Polars frames with documented columns."""

from steelyard.frames.catalogue import TABLES, columns
from steelyard.frames.files import read_ledger, read_plan, read_workload
from steelyard.frames.ledgers import ledger_attempts, ledger_pools, ledger_tasks
from steelyard.frames.plans import plan_baselines, plan_choices, plan_machines
from steelyard.frames.workloads import workload_steps, workload_tasks

__all__ = [
    "TABLES",
    "columns",
    "ledger_attempts",
    "ledger_pools",
    "ledger_tasks",
    "plan_baselines",
    "plan_choices",
    "plan_machines",
    "read_ledger",
    "read_plan",
    "read_workload",
    "workload_steps",
    "workload_tasks",
]
