"""Speed, memory and work, against the machine's ceilings and against peers; tables and plots made from JSON."""
