"""Scripts to try one kernel in a minute."""
