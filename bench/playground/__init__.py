"""Scripts that try one kernel in a minute."""
