"""Kubernetes as a target: plain Services or Seldon Core, through the official client."""
