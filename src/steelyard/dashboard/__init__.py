"""The dashboard at `/`: pages of the live fleet, tasks, ledger and plans, rendered here."""
