"""What an evaluation found, as numbers, figures and one HTML page."""
