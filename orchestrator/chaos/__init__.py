"""Thousands of mixed sagas on real brokers while a nemesis breaks one part after the other: `saga chaos`."""
