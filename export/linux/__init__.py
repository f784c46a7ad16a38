"""The Linux kit: ``run.py`` is what goes to the device, ``kit`` puts the folder together."""
