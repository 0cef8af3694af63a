"""What makes networks faster, for a longer start (``compiled``, ``graphed``) or less exactly (``shortcuts``)."""
