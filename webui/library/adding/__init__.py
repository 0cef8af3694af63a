"""Files on their way into the data folder: what one is, where it goes, and where it comes from."""
