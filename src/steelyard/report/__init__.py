"""Tables for the terminal and one HTML page with plots, from the ledger and the plan."""
