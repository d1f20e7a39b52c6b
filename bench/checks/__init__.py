"""May a number be believed? Checks of a detector, of an attack and of a certificate."""
