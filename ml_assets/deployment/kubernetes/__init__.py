"""Kubernetes as a target: plain Services, Seldon Core or KServe, through the official client."""
