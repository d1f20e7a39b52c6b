"""Is a stored cell what it says?"""
