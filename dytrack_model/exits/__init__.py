"""What stands at an exit: features recycled and compared, a score, a box."""
