"""Callers that an Application Load Balancer signed in."""
