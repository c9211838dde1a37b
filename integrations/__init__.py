"""The assistant inside other programs: a folder for each protocol or framework that it speaks to."""
