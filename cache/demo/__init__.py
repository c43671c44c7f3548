"""`cache demo`: real processes, real input, a real crash, and a proof at the end."""
