"""What `doctor` checks: the cluster and the services, one check after the other."""
