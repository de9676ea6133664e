"""From prepared clips to the pairs that training sees."""
