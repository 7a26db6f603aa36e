"""`steelyard demo`: real agents on a real model, from run over ledger and plan to simulation."""
