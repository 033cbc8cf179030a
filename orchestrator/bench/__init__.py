"""Measurements of the whole system on a broker of its own, beside a floor in the same run: `saga bench`."""
