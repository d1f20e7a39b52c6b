"""From a name to a fitted detector, an attack or a data set."""
