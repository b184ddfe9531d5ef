"""What stands below everything and knows of nothing here: files, the machine, progress bars."""
