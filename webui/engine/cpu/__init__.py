"""What is faster on a CPU than plain torch: ``install`` puts it into a network, ``uninstall`` takes it out again."""
