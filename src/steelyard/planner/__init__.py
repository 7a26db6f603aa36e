"""The cheapest fleet that serves a demand inside its SLOs, with a proven gap."""
