"""One cell from start to finish: resumed, redone, checked."""
