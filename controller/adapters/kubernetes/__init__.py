"""The Kubernetes API: policies, their status, Secrets and Events."""
