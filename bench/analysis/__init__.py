"""From cells to rankings; draws nothing and writes nothing."""
