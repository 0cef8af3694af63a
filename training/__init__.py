"""The recipe that makes the embedded demo model; never imported by the product."""
