"""Colours that are told apart with any kind of colour vision (Okabe and Ito, 2008)."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")


def colour(index: int) -> str:
    """Give the colour of an exit or a curve."""
    return PALETTE[index % len(PALETTE)]
