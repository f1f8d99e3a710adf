"""`facade up`: everything for one machine, from one state folder."""
