"""What is wrong with a machine, a cluster or its services, and how to cure it."""
