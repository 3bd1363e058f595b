"""Browsers in low bandwidth against one server on one core: what decoding costs, and whether it keeps up."""
