"""Building blocks that dataset files share; no file here is a dataset."""
