"""Base models: loading, adapters, packed attention, and the capture of layers."""
