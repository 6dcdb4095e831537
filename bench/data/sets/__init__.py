"""The data sets, one per file; the file name is the name that the command line takes."""
