"""What a scan concludes for each video, from what it found out. Pure: no I/O, no clock."""
