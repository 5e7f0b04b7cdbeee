"""The colors of regions, the same in every picture and page."""

REGION_COLORS = ("#56B4E9", "#F0E442", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2", "#FFFFFF")
"""In the order of dataset.json's regions, on black: of Okabe and Ito, whom the color-blind can follow, and white."""
