"""The paper, section by section: descriptors, association, channels, scoring. Knows no file and no process."""
