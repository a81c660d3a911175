"""The figures of the page: each function returns the SVG panels that the run has numbers for."""
