"""What the controller costs, measured on real parts side by side with what it is compared to (`make bench`)."""
