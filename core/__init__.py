"""Arrays in, arrays out: the numerical core. It knows nothing of files, options or terminals."""
