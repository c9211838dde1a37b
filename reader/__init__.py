"""The reader: a process that outlives the tasks that ask it, and reads, embeds and writes without a pause."""
