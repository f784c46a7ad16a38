"""The Linux kit: its files are in ``edgecnn/embed``, so that the wheel has them too."""
